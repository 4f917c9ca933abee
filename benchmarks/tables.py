"""Tables in Markdown, made from the committed results."""

from __future__ import annotations

from benchmarks import engine_tables
from benchmarks.committed import Result
from benchmarks.table_parts import MIB, OURS, bold_if_ours, picture, skipped, table, versions, where

__all__ = ["blocks", "replaced"]


def blocks(results: dict[str, Result], others: dict[str, Result] | None = None) -> dict[str, str]:
    """Name of each generated block -> its Markdown.

    Args:
        results: of the device that is shown.
        others: device -> its comparison of engines, of the others.
    """
    found = {}
    if "engines" in results:
        found["engines"] = engine_tables.overview(results["engines"])
        found["engines-numbers"] = engine_tables.numbers(results["engines"], results.get("servers"))
        found["engines-picture"] = picture("engines", "results")
        found["engines-speed"] = engine_tables.speed(results["engines"])
        found["engines-rows"] = engine_tables.rows_table(results["engines"])
        found["engines-cpus"] = engine_tables.cpus(others or {})
        found["engines-memory"] = engine_tables.memory_table(results["engines"])
        found["engines-accuracy"] = engine_tables.accuracy(results["engines"])
        found["engines-differences"] = engine_tables.differences(results["engines"])
    if "selection" in results:
        found["selection"] = _selection(results["selection"])
    if "weight_accuracy" in results:
        found["weight_accuracy"] = _weights(results["weight_accuracy"])
    for name, made in (("constraints", _constraints), ("routed", _routed), ("batch", _batch)):
        if name in results:
            found[name] = made(results[name])
    if "servers" in results:
        found["servers"] = _servers(results["servers"])
    if "growth" in results:
        found["growth-picture"] = picture("growth", "results")
        found["growth-length"] = _growth_length(results["growth"])
        found["growth-batch"] = _growth_batch(results["growth"])
    return found


def replaced(text: str, generated: dict[str, str]) -> str:
    """`text` with what stands between `<!-- NAME: begin -->` and `<!-- NAME: end -->` made anew."""
    for name, block in generated.items():
        begin, end = f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->"
        if begin in text:
            before, _, rest = text.partition(begin)
            _, _, after = rest.partition(end)
            text = f"{before}{begin}{block}\n{end}{after}"
    return text


def _weights(result: Result) -> str:
    exact = result["weights"]["float32"]["perplexity"]
    rows = [
        [
            name,
            f"{found['sabiyarn_125m_mib']:.0f}",
            f"{found['mean_kl_divergence']:.3f}",
            f"{found['perplexity']:.2f} ({found['perplexity'] / exact - 1:+.1%})",
            f"{found['top1_agreement']:.1%}",
        ]
        for name, found in result["weights"].items()
        if name != "float32"
    ]
    head = [
        "weights",
        "SabiYarn-125M, MiB",
        "mean KL divergence, nats",
        f"perplexity (float32: {exact:.2f})",
        "same likeliest token",
    ]
    return "\n".join(table(head, rows))


def _selection(result: Result) -> str:
    labels = {
        "greedy": "greedy",
        "sample": "top-k 50, top-p 0.9, repetition penalty over 512 ids",
        "beams": "one step of 5-beam search",
    }
    rows = (
        [label, *(f"{result[case][engine]:.0f} us" for engine in (OURS, "numpy", "transformers"))]
        for case, label in labels.items()
    )
    header = [
        f"choosing a token among {result['vocab_size']}, one core",
        "this package",
        "NumPy",
        "transformers",
    ]
    return "\n".join(table(header, rows))


def _constraints(result: Result) -> str:
    free = result["step_us"]["none"]["median"]
    rows = [
        [
            name.replace("_", " "),
            f"{step['median']:.0f} us",
            f"{step['p99']:.0f} us",
            f"{step['median'] - free:+.0f} us",
            f"{result['first_use_ms'][name]:.0f} ms" if name in result["first_use_ms"] else "",
        ]
        for name, step in result["step_us"].items()
    ]
    head = ["constraint", "step, median", "99th percentile", "beside none", "made once, in"]
    return "\n".join([f"{where(result)}, one core:", "", *table(head, rows)])


def _routed(result: Result) -> str:
    labels = {
        "dense": "SabiYarn-125M, dense",
        "routed": "SabiYarn_MoE-280M",
        "all": "the same, every expert computed",
    }
    rows = [
        [
            label,
            f"{result[name]['decode_ms']['median']:.2f}",
            f"{result[name]['prefill_tokens_per_second']['median']:.0f}",
            f"{result[name]['batch_decode_tokens_per_second']['median']:.0f}",
        ]
        for name, label in labels.items()
    ]
    head = ["random weights of the shape of", "ms per token", "prefill, tokens/s", "8 rows, tokens/s"]
    ratios = "; ".join(f"{name} {ratio:.2f}" for name, ratio in result["ratios_of_medians"].items())
    lines = [
        f"{result['dtype']} weights, prompts of {result['prompt_tokens']} tokens, interleaved, on {where(result)}:",
        "",
        *table(head, rows),
        "",
        f"Ratios of medians: {ratios}.",
    ]
    return "\n".join(lines)


def _batch(result: Result) -> str:
    rates, (short, long) = result["prompts_per_second"], result["corpus"]
    ways = {"one_by_one": "generate(), one by one", "job": "batch job"}
    ways |= {
        name: f"generate(), {name.rpartition('_')[2]} at once"
        for name in rates
        if name.startswith("generate_")
    }
    rows = [
        [label, f"{rates[name]:.0f}", f"{rates[name] / rates['one_by_one']:.1f}"]
        for name, label in ways.items()
    ]
    head = [
        f"{result['prompts']} prompts of {result['model']}, 24 tokens each",
        "prompts/s",
        "times one by one",
    ]
    lines = [
        f"Medians of {result['rounds']} interleaved rounds on {where(result)}:",
        "",
        *table(head, rows),
        "",
        f"A job's own work, without a model: {long['us_per_line']:.0f} us for each of {long['lines']:,} lines; private "
        f"memory {long['private_mib']:.0f} MiB\n(with {short['lines']} lines {short['private_mib']:.0f}); "
        f"{long['resume_seconds']:.2f} s to resume behind the last line but one.",
    ]
    return "\n".join(lines)


def _servers(result: Result) -> str:
    asked = result["asked"]
    shape = "SabiYarn-125M's shape" if asked["shape"] == "full" else f"the {asked['shape']} shape"
    rows = []
    for name, server in result["servers"].items():
        note = f" ({server['note']})" if server["note"] else ""
        for load, figures in server["loads"].items():
            rows.append(
                [
                    bold_if_ours(name) + note,
                    load,
                    f"{figures['tokens_per_second']:.0f}",
                    f"{figures['first_token_median_s']:.2f}",
                    f"{figures['first_token_max_s']:.2f}",
                    f"{server['resident_mib']:.0f}",
                ]
            )
    head = ["server", "streams", "tokens/s", "first token, s", "the last stream's", "resident memory, MiB"]
    lines = [
        f"Streams of {asked['tokens']} tokens after prompts of {asked['prompt']}, opened at once, from a random "
        f"model of {shape} on {where(result)}. {versions(result)}.",
        "",
        *table(head, rows),
    ]
    return "\n".join(lines) + skipped(result) + "\n\n" + picture("servers", "../benchmarks/results")


def _growth_length(result: Result) -> str:
    rows = []
    for name, curves in result["curves"].items():
        prefills = curves["prefill"]
        for point in curves["decode"]:
            # The longest past leaves room for the steps, so it is a few tokens shorter than the longest prompt.
            near = [p for p in prefills if abs(p["length"] - point["past"]) < 32]
            rows.append(
                [
                    name,
                    str(point["past"]),
                    f"{point['step_ms']['median']:.1f}",
                    f"{point['floor_ms']:.1f}",
                    f"{point['kv_cache_bytes'] / MIB:.0f}",
                    f"{near[0]['seconds']:.1f}" if near else "",
                    f"{near[0]['tokens_per_second']:.0f}" if near else "",
                    f"{near[0]['peak_bytes_above_loaded'] / MIB:.0f}" if near else "",
                ]
            )
    return "\n".join(
        table(
            [
                "weights",
                "past, tokens",
                "ms per token",
                "floor, ms",
                "KV cache, MiB",
                "prefill of so many, s",
                "tokens/s",
                "its peak above the loaded model, MiB",
            ],
            rows,
        )
    )


def _growth_batch(result: Result) -> str:
    rows = []
    for name, curves in result["curves"].items():
        single = curves["batch"][0]["step_ms"]["median"] / curves["batch"][0]["rows"]
        for point in curves["batch"]:
            step = point["step_ms"]["median"]
            rows.append(
                [
                    name,
                    str(point["rows"]),
                    f"{step:.1f}",
                    f"{1e3 * point['rows'] / step:.0f}",
                    f"{single * point['rows'] / step:.2f}",
                    f"{point['kv_cache_bytes'] / MIB:.0f}",
                ]
            )
    return "\n".join(
        table(["weights", "rows", "ms per step", "tokens/s", "times one row", "KV cache, MiB"], rows)
    )
