"""Tables of the comparison with other engines."""

from __future__ import annotations

from benchmarks.committed import Result
from benchmarks.table_parts import MIB, OURS, bold_if_ours, picture, skipped, table, versions, where

__all__ = ["accuracy", "cpus", "differences", "memory_table", "numbers", "overview", "rows_table", "speed"]


def overview(result: Result) -> str:
    """Decode, prefill, memory and loading of each engine, in one table, with the picture."""
    shape = result["model"]
    lines = [
        f"A random model of SabiYarn-125M's shape ({shape['n_layer']} layers, width {shape['n_embd']}, "
        f"{shape['vocab_size']} tokens) on {where(result)}. Memory reads at {_gb(result)} GB/s. {versions(result)}.",
        "",
        *table(
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
                    bold_if_ours(name),
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
        + picture("engines", "../benchmarks/results")
    )


def numbers(result: Result, servers: Result | None) -> str:
    """This package beside llama.cpp, in three or four figures."""
    names = (f"{OURS} int8", "llama.cpp Q8_0")
    if missing := [name for name in names if name not in result["engines"]]:
        reason = result["skipped"].get(missing[0], "not asked for")
        return f"No figures: {missing[0]} was not measured ({reason})."
    ours, other = (result["engines"][name] for name in names)
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
    return "\n".join(table(["", OURS, "llama.cpp"], rows))


def speed(result: Result) -> str:
    """Every length of every engine."""
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
                    bold_if_ours(name),
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
        table(
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


def rows_table(result: Result) -> str:
    """Prompts side by side."""
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
                    bold_if_ours(name),
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
            *table([*head, "CPU s per 100 tokens"], [*rows, *_not_measured(result, 7)]),
            *([f"\nNot with several rows: {', '.join(lacking)}."] if lacking else []),
        ]
    )


def cpus(others: dict[str, Result]) -> str:
    """A row for each other device, with a link to its figures."""
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
    return "\n".join(table([*head, "llama.cpp", "all figures"], rows))


def memory_table(result: Result) -> str:
    """Files, loading and memory of each engine."""
    rows = []
    for name, engine in result["engines"].items():
        memory = engine["memory"]
        base, loaded, after = memory["imported"], memory["loaded"], memory["after_256_tokens"]
        longest = list(memory.values())[-1]
        rows.append(
            [
                bold_if_ours(name),
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
        table(
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


def accuracy(result: Result) -> str:
    """How far our weight formats move the answers."""
    measured = {name: e["accuracy"] for name, e in result["engines"].items() if "accuracy" in e}
    rows = [
        [bold_if_ours(name), f"{a['mean_kl_divergence']:.2g}", f"{a['top1_agreement']:.1%}"]
        for name, a in measured.items()
    ]
    return "\n".join(table(["weights", "mean KL divergence from float32, nats", "same greedy choice"], rows))


def differences(result: Result) -> str:
    """In words, where engines do not do quite the same."""
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
    return "\n".join(lines) + skipped(result)


def _not_measured(result: Result, columns: int) -> list[list[str]]:
    """A row for each engine that is missing from a table of so many columns, with the reason."""
    reasons = ((name, f"not measured: {why}") for name, why in result["skipped"].items())
    return [[bold_if_ours(name), why.replace("|", "/"), *[""] * (columns - 2)] for name, why in reasons]


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
