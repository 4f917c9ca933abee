"""Tables in Markdown, made from the committed results."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "blocks", "devices", "load_others", "load_results", "replaced", "where"]

RESULTS = Path(__file__).parent / "results"

MIB = 2**20
OURS = "sabiyarn_edge"

Result = dict[str, Any]


def devices(folder: Path = RESULTS) -> list[str]:
    """The devices that engines were compared on, the newest comparison first: DEVICE of results/DEVICE_engines.json."""
    suffix = "_engines.json"
    dated = [
        (_load(path)["machine"]["date"], path.name.removesuffix(suffix))
        for path in sorted(folder.glob(f"*{suffix}"))
    ]
    return [device for _, device in sorted(dated, key=lambda pair: pair[0], reverse=True)]


def load_results(device: str | None = None, folder: Path = RESULTS) -> dict[str, Result]:
    """Benchmark -> result, of one device (None: the newest): results/DEVICE_BENCHMARK.json."""
    device = devices(folder)[0] if device is None else device
    return {
        path.stem.removeprefix(f"{device}_"): _load(path) for path in sorted(folder.glob(f"{device}_*.json"))
    }


def load_others(folder: Path = RESULTS) -> dict[str, Result]:
    """Device -> its comparison of engines, of all devices but the newest."""
    return {device: _load(folder / f"{device}_engines.json") for device in devices(folder)[1:]}


def _load(path: Path) -> Result:
    result: Result = json.loads(path.read_text(encoding="utf-8"))
    return result


def _with(machine: dict[str, Any]) -> str:
    """Name the instructions that matmuls use: the name of a virtual machine's CPU does not tell."""
    return f" ({machine['instruction_set']})" if "instruction_set" in machine else ""


def where(result: Result) -> str:
    """Device and date in one phrase."""
    machine = result["machine"]
    threads = f", {result['threads']} threads" if "threads" in result else ""
    return f"{machine['cpu']}{_with(machine)}, {machine['cpus']} CPUs{threads}, {machine['date']}"


def _versions(result: Result) -> str:
    """The other packages that took part."""
    versions = result["machine"]["versions"]
    return ", ".join(f"{name} {version}" for name, version in versions.items() if name != "sabiyarn-edge")


def blocks(results: dict[str, Result], others: dict[str, Result] | None = None) -> dict[str, str]:
    """Name of each generated block -> its Markdown.

    Args:
        results: of the device that is shown.
        others: device -> its comparison of engines, of the others.
    """
    found = {}
    if "engines" in results:
        found["engines"] = _overview(results["engines"])
        found["engines-numbers"] = _numbers(results["engines"], results.get("servers"))
        found["engines-picture"] = _picture("engines", "results")
        found["engines-speed"] = _speed(results["engines"])
        found["engines-rows"] = _rows(results["engines"])
        found["engines-cpus"] = _cpus(others or {})
        found["engines-memory"] = _memory(results["engines"])
        found["engines-accuracy"] = _accuracy(results["engines"])
        found["engines-differences"] = _differences(results["engines"])
    if "selection" in results:
        found["selection"] = _selection(results["selection"])
    if "weight_accuracy" in results:
        found["weight_accuracy"] = _weights(results["weight_accuracy"])
    for name, table in (("constraints", _constraints), ("routed", _routed), ("batch", _batch)):
        if name in results:
            found[name] = table(results[name])
    if "servers" in results:
        found["servers"] = _servers(results["servers"])
    if "growth" in results:
        found["growth-picture"] = _picture("growth", "results")
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


def _overview(result: Result) -> str:
    shape = result["model"]
    lines = [
        f"A random model of SabiYarn-125M's shape ({shape['n_layer']} layers, width {shape['n_embd']}, "
        f"{shape['vocab_size']} tokens) on {where(result)}. Memory reads at {_gb(result)} GB/s. {_versions(result)}.",
        "",
        *_table(
            [
                "engine, weights",
                "ms per token after 128",
                "1024",
                "4000 tokens",
                "prefill of 1024, tokens/s",
                "4000",
                "private memory, MiB",
                "load, s",
            ],
            (
                [
                    _name(name),
                    *(_decode(engine, length) for length in ("128", "1024", "4000")),
                    *(_prefill(engine, length) for length in ("1024", "4000")),
                    f"{_own_mib(engine):.0f}",
                    f"{engine['load_seconds']['median']:.2f}",
                ]
                for name, engine in result["engines"].items()
            ),
        ),
        *(f"| {' | '.join(row)} |" for row in _not_measured(result, 8)),
    ]
    return (
        "\n".join(lines)
        + "\n\nMedians of interleaved trials. Private memory is anonymous memory after 256 tokens, above the imports. "
        "Mapped\nweights come on top; they are shared and can be dropped.\n\n"
        + _picture("engines", "../benchmarks/results")
    )


def _numbers(result: Result, servers: Result | None) -> str:
    ours, other = (result["engines"][name] for name in (f"{OURS} int8", "llama.cpp Q8_0"))
    figures = {
        "one token, after 128": [f"{_decode(engine, '128')} ms" for engine in (ours, other)],
        "private memory after 256 tokens": [f"{_own_mib(engine):.0f} MiB" for engine in (ours, other)],
        "loading": [f"{engine['load_seconds']['median']:.2f} s" for engine in (ours, other)],
    }
    if servers is not None:
        own, other = (servers["servers"][name]["loads"] for name in (f"{OURS} int8", "llama-cpp-python Q8_0"))
        most = max(own, key=int)
        rates = [f"{loads[most]['tokens_per_second']:.0f} tokens/s" for loads in (own, other)]
        figures[f"{most} streams from a server"] = rates
    rows = [[what, f"**{our}**", their] for what, (our, their) in figures.items()]
    return "\n".join(_table(["", OURS, "llama.cpp"], rows))


def _speed(result: Result) -> str:
    lengths = sorted({int(n) for engine in result["engines"].values() for n in engine["lengths"]})
    rows = []
    for name, engine in result["engines"].items():
        for length in map(str, lengths):
            if length not in engine["lengths"]:
                continue
            figures = engine["lengths"][length]
            decode, beams = figures["decode_ms"], engine.get("beams", {})
            at_beams = length == str(beams.get("prompt_tokens"))
            rows.append(
                [
                    _name(name),
                    length,
                    f"{decode['median']:.2f}",
                    f"{decode['p10']:.2f} - {decode['p90']:.2f}",
                    f"{figures['fraction_of_bandwidth']:.0%}",
                    f"{figures['cpu_seconds_per_100_tokens']:.2f}",
                    f"{figures['first_token_ms']['median']:.0f}",
                    f"{figures['prefill_tokens_per_second']:.0f}",
                    f"{beams['step_ms']['median']:.1f}" if at_beams else "",
                ]
            )
    return "\n".join(
        _table(
            [
                "engine, weights",
                "prompt, tokens",
                "ms per token",
                "p10 - p90",
                "of the bandwidth",
                "CPU s per 100 tokens",
                "first token, ms",
                "prefill, tokens/s",
                "5 beams, ms per step",
            ],
            [*rows, *_not_measured(result, 9)],
        )
    )


def _rows(result: Result) -> str:
    measured = {name: engine["rows"] for name, engine in result["engines"].items() if "rows" in engine}
    if not measured:
        return "The committed comparison was made without rows."
    rows = []
    for name, by_rows in measured.items():
        alone = by_rows.get("1")
        for count, figures in by_rows.items():
            step, rate = figures["step_ms"], figures["tokens_per_second"]
            rows.append(
                [
                    _name(name),
                    count,
                    f"{step['median']:.1f}",
                    f"{step['p10']:.1f} - {step['p90']:.1f}",
                    f"{rate:.0f}",
                    f"{rate / alone['tokens_per_second']:.1f}" if alone else "",
                    f"{figures['cpu_seconds_per_100_tokens']:.2f}",
                ]
            )
    head = ["engine, weights", "rows", "ms per step", "p10 - p90", "tokens/s", "times one row"]
    lacking = [name for name in result["engines"] if name not in measured]
    return "\n".join(
        [
            f"Behind prompts of {result['row_prompt_tokens']} tokens each:",
            "",
            *_table([*head, "CPU s per 100 tokens"], [*rows, *_not_measured(result, 7)]),
            *([f"\nNot with several rows: {', '.join(lacking)}."] if lacking else []),
        ]
    )


def _cpus(others: dict[str, Result]) -> str:
    if not others:
        return "No other CPU has a committed comparison yet."
    rows = []
    for device, result in others.items():
        file = f"{device}_engines.json"
        found = [result["engines"].get(name) for name in (f"{OURS} int8", "llama.cpp Q8_0")]
        rows.append(
            [
                where(result),
                *(_decode(engine, "128") if engine else "" for engine in found),
                *(_prefill(engine, "1024") if engine else "" for engine in found),
                f"[{file}](results/{file})",
            ]
        )
    head = [
        "CPU",
        f"{OURS} int8, ms per token after 128",
        "llama.cpp Q8_0",
        f"{OURS}, prefill of 1024, tokens/s",
    ]
    return "\n".join(_table([*head, "llama.cpp", "all figures"], rows))


def _not_measured(result: Result, columns: int) -> list[list[str]]:
    """A row for each engine that is missing from a table of so many columns, with the reason."""
    reasons = ((name, f"not measured: {why}") for name, why in result["skipped"].items())
    return [[_name(name), why.replace("|", "/"), *[""] * (columns - 2)] for name, why in reasons]


def _memory(result: Result) -> str:
    rows = []
    for name, engine in result["engines"].items():
        memory = engine["memory"]
        base, loaded, after = memory["imported"], memory["loaded"], memory["after_256_tokens"]
        longest = list(memory.values())[-1]
        rows.append(
            [
                _name(name),
                f"{engine['disk_bytes'] / MIB:.0f}",
                f"{engine['import_seconds']['median']:.2f}",
                f"{engine['load_seconds']['median']:.2f}",
                f"{(loaded['anonymous'] - base['anonymous']) / MIB:.0f}",
                f"{_own_mib(engine):.0f}",
                f"{(after['mapped'] - base['mapped']) / MIB:.0f}",
                f"{loaded['peak'] / MIB:.0f}",
                f"{longest['peak'] / MIB:.0f}",
            ]
        )
    longest_name = list(next(iter(result["engines"].values()))["memory"])[-1].replace("_", " ")
    return "\n".join(
        _table(
            [
                "engine, weights",
                "on disk, MiB",
                "import, s",
                "load, s",
                "private after load, MiB",
                "private after 256 tokens",
                "mapped",
                "peak of loading",
                f"peak {longest_name}",
            ],
            rows,
        )
    )


def _accuracy(result: Result) -> str:
    measured = {name: e["accuracy"] for name, e in result["engines"].items() if "accuracy" in e}
    rows = [
        [_name(name), f"{a['mean_kl_divergence']:.2g}", f"{a['top1_agreement']:.1%}"]
        for name, a in measured.items()
    ]
    return "\n".join(_table(["weights", "mean KL divergence from float32, nats", "same greedy choice"], rows))


def _differences(result: Result) -> str:
    lines = [f"- not in any figure: {result['excluded']}"]
    seen: dict[str, list[str]] = {}
    for name, engine in result["engines"].items():
        seen.setdefault(engine["excluded"], []).append(name)
    lines += [f"- {', '.join(names)}: {difference}" for difference, names in seen.items() if difference]
    kv: dict[str, list[str]] = {}
    for name, engine in result["engines"].items():
        kv.setdefault(engine["kv_cache_dtype"], []).append(name)
    lines += [f"- keys and values in {dtype}: {', '.join(names)}" for dtype, names in kv.items()]
    builds: dict[str, list[str]] = {}
    for name, engine in result["engines"].items():
        builds.setdefault(engine.get("build", ""), []).append(name)
    lines += [f"- built with {build}: {', '.join(names)}" for build, names in builds.items() if build]
    return "\n".join(lines) + _skipped(result)


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
    return "\n".join(_table(head, rows))


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
    return "\n".join(_table(header, rows))


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
    return "\n".join([f"{where(result)}, one core:", "", *_table(head, rows)])


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
        *_table(head, rows),
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
        *_table(head, rows),
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
                    _name(name) + note,
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
        f"model of {shape} on {where(result)}. {_versions(result)}.",
        "",
        *_table(head, rows),
    ]
    return "\n".join(lines) + _skipped(result) + "\n\n" + _picture("servers", "../benchmarks/results")


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
        _table(
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
        _table(["weights", "rows", "ms per step", "tokens/s", "times one row", "KV cache, MiB"], rows)
    )


def _picture(benchmark: str, folder: str) -> str:
    labels = {
        "engines": "Decode, prefill and memory of each engine",
        "growth": "Decode, prefill, memory and batch",
        "servers": "Throughput and first tokens against the number of streams",
    }
    return f"![{labels[benchmark]}]({folder}/{devices()[0]}_{benchmark}.svg)"


def _table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    return [
        f"| {' | '.join(header)} |",
        f"|---{'|---:' * (len(header) - 1)}|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _name(name: str) -> str:
    return f"**{name}**" if name.startswith(OURS) else name


def _decode(engine: Result, length: str) -> str:
    figures = engine["lengths"].get(length)
    return f"{figures['decode_ms']['median']:.1f}" if figures else ""


def _prefill(engine: Result, length: str) -> str:
    figures = engine["lengths"].get(length)
    return f"{figures['prefill_tokens_per_second']:.0f}" if figures else ""


def _own_mib(engine: Result) -> float:
    """Anonymous memory after 256 tokens above what importing the engine's packages takes."""
    memory = engine["memory"]
    return float((memory["after_256_tokens"]["anonymous"] - memory["imported"]["anonymous"]) / MIB)


def _gb(result: Result) -> str:
    return f"{result['bandwidth']['best'] / 1e9:.0f}"


def _skipped(result: Result) -> str:
    if not result["skipped"]:
        return ""
    return "\n\nSkipped: " + "; ".join(f"{name} ({why})" for name, why in result["skipped"].items()) + "."
