"""Pictures of the committed results. Needs matplotlib."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from benchmarks.table_parts import OURS, where

__all__ = ["draw"]

MIB = 2**20
GREEN, PALE_GREEN, GREY, PALE_GREY, RED = "#1b7f4d", "#9fd3b6", "#6f7782", "#c9ced6", "#c0392b"
LINES = {"int8": "#1b7f4d", "int4": "#d17a00", "float32": "#6f7782"}

Result = dict[str, Any]


def draw(benchmark: str, result: Result, path: Path) -> bool:
    """Write the picture of one benchmark, if there is one, as SVG or PNG by the path's ending."""
    figures = {"engines": _engines, "growth": _growth, "servers": _servers}
    if benchmark not in figures:
        return False
    settings = {
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "svg.hashsalt": "sabiyarn_edge",  # the same picture gives the same file
    }
    with matplotlib.rc_context(settings):
        figure = figures[benchmark](result)
        figure.savefig(path, dpi=130, metadata={"Date": None} if path.suffix == ".svg" else None)
    return True


def _engines(result: Result) -> Figure:
    engines = result["engines"]
    names = list(engines)[::-1]  # the first one on top
    figure = Figure(figsize=(11.5, 1.6 + 0.34 * len(names)), layout="constrained", facecolor="white")
    figure.suptitle(
        f"One random model of SabiYarn-125M's shape in every engine, interleaved trials\n{where(result)}",
        fontsize=10.5,
    )
    decode, prefill, memory = figure.subplots(1, 3, sharey=True)
    y = range(len(names))
    colors = [GREEN if name.startswith(OURS) else GREY for name in names]
    lengths = next(iter(engines.values()))["lengths"]
    length, long = ("128", "1024" if "1024" in lengths else list(lengths)[-1])

    steps = [engines[name]["lengths"][length]["decode_ms"] for name in names]
    medians = [step["median"] for step in steps]
    reach = [
        [max(step["median"] - step["p10"], 0) for step in steps],
        [max(step["p90"] - step["median"], 0) for step in steps],
    ]
    decode.barh(y, medians, color=colors, xerr=reach, error_kw={"ecolor": "#333333", "elinewidth": 0.8})
    floors = [engines[name]["lengths"][length]["floor_ms"] for name in names]
    decode.plot(floors, y, "|", color=RED, markersize=11, markeredgewidth=2)
    limit = 1.3 * sorted(medians)[-2]  # the slowest one would squeeze the others: its bar is cut
    decode.set_xlim(0, limit)
    for row, (median, step) in enumerate(zip(medians, steps, strict=True)):
        end = max(median, step["p90"])
        place, side = (end + 0.015 * limit, "left") if end < 0.85 * limit else (0.99 * limit, "right")
        label = decode.text(place, row, f"{median:.1f}", va="center", ha=side, fontsize=8.5)
        label.set_bbox({"facecolor": "white", "edgecolor": "none", "pad": 1})
    decode.set_yticks(list(y), names)
    for label, name in zip(decode.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if name.startswith(OURS) else "normal")
    decode.set_title(f"Decode: ms per token after {length} tokens", fontsize=9.5)
    decode.set_xlabel("less is better; line: p10 - p90; red: memory's floor")

    rates = [engines[name]["lengths"].get(long, {}).get("prefill_tokens_per_second", 0) for name in names]
    prefill.barh(y, rates, color=colors)
    _numbers(prefill, rates)
    prefill.set_title(f"Prefill: tokens/s, prompt of {long}", fontsize=9.5)
    prefill.set_xlabel("more is better")

    own = [_above(engines[name]["memory"], "anonymous") for name in names]
    mapped = [_above(engines[name]["memory"], "mapped") for name in names]
    memory.barh(y, own, color=colors)
    pale = [PALE_GREEN if name.startswith(OURS) else PALE_GREY for name in names]
    memory.barh(y, mapped, left=own, color=pale)
    _numbers(memory, [a + b for a, b in zip(own, mapped, strict=True)], own)
    memory.set_title("Memory after 256 tokens, MiB", fontsize=9.5)
    memory.set_xlabel("dark: private; pale: mapped, shared")
    return figure


def _above(memory: dict[str, dict[str, int]], kind: str) -> float:
    return max(memory["after_256_tokens"][kind] - memory["imported"][kind], 0) / MIB


def _numbers(axes: Axes, values: list[float], parts: list[float] | None = None) -> None:
    """Each bar's number at its end; with parts, the first part's before it."""
    axes.set_xlim(0, 1.3 * max(values))
    for row, value in enumerate(values):
        text = f"{value:.0f}" if parts is None else f"{parts[row]:.0f} + {value - parts[row]:.0f}"
        axes.text(value + 0.015 * max(values), row, text, va="center", fontsize=8.5)


def _growth(result: Result) -> Figure:
    figure = Figure(figsize=(10.5, 7.4), layout="constrained", facecolor="white")
    figure.suptitle(
        f"How a random model of SabiYarn-125M's shape grows\n{where(result)}, keys and values in float16",
        fontsize=10.5,
    )
    (decode, prefill), (memory, batch) = figure.subplots(2, 2)
    for name, curves in result["curves"].items():
        color = LINES.get(name, GREY)
        past = [point["past"] for point in curves["decode"]]
        steps = [point["step_ms"] for point in curves["decode"]]
        decode.plot(past, [step["median"] for step in steps], "o-", color=color, markersize=4, label=name)
        decode.fill_between(
            past, [step["p10"] for step in steps], [step["p90"] for step in steps], color=color, alpha=0.15
        )
        floors = [point["floor_ms"] for point in curves["decode"]]
        decode.plot(
            past, floors, "--", color=color, linewidth=1, label=f"{name}: reading weights, keys, values"
        )
        rows = [point["rows"] for point in curves["batch"]]
        rates = [1e3 * point["rows"] / point["step_ms"]["median"] for point in curves["batch"]]
        batch.plot(rows, rates, "o-", color=color, markersize=4, label=name)
        batch.plot(rows, [rates[0] * n / rows[0] for n in rows], ":", color=color, linewidth=1)
        if curves["prefill"]:
            lengths = [point["length"] for point in curves["prefill"]]
            prefill.plot(
                lengths,
                [point["tokens_per_second"] for point in curves["prefill"]],
                "o-",
                color=color,
                markersize=4,
                label=name,
            )
            peaks = [point["peak_bytes_above_loaded"] / MIB for point in curves["prefill"]]
            memory.plot(
                lengths, peaks, "o-", color=RED, markersize=4, label="peak of a prefill of so many tokens"
            )
    first = next(iter(result["curves"].values()))
    memory.plot(
        [point["past"] for point in first["decode"]],
        [point["kv_cache_bytes"] / MIB for point in first["decode"]],
        "o-",
        color=GREY,
        markersize=4,
        label="room for keys and values, one row",
    )
    for axes in (decode, prefill, memory):
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    prefill.set_ylim(0)
    memory.set_yscale("log")
    memory.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0f}"))
    batch.set_ylim(0, 1.25 * max(max(line.get_ydata()) for line in batch.get_lines()[::2]))
    decode.set_ylim(0, 1.25 * max(max(line.get_ydata()) for line in decode.get_lines()))
    titles = {
        decode: ("Decode, ms per token", "tokens in the past"),
        prefill: ("Prefill, tokens/s of the prompt", "tokens in the prompt"),
        memory: ("Memory above the loaded model, MiB", "tokens"),
        batch: ("Batch: tokens/s of all rows together", "rows (dotted: each as fast as one alone)"),
    }
    for axes, (title, label) in titles.items():
        axes.set_title(title, fontsize=9.5)
        axes.set_xlabel(label)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    return figure


def _servers(result: Result) -> Figure:
    figure = Figure(figsize=(10.5, 3.8), layout="constrained", facecolor="white")
    figure.suptitle(
        f"Streams of {result['asked']['tokens']} tokens, opened at once\n{where(result)}", fontsize=10.5
    )
    rates, first = figure.subplots(1, 2)
    others = iter((GREY, LINES["int4"], RED))
    for name, server in result["servers"].items():
        color = GREEN if name.startswith(OURS) else next(others)
        streams = [int(load) for load in server["loads"]]
        for axes, key in ((rates, "tokens_per_second"), (first, "first_token_median_s")):
            values = [figures[key] for figures in server["loads"].values()]
            axes.plot(streams, values, "o-", color=color, markersize=4, label=name)
        last = [figures["first_token_max_s"] for figures in server["loads"].values()]
        first.plot(streams, last, ":", color=color, linewidth=1)
    rates.set_ylim(0)
    first.set_yscale("log")
    first.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axes, title in (
        (rates, "Tokens/s of all streams together"),
        (first, "First token, s: median (dotted: the last stream's)"),
    ):
        axes.set_title(title, fontsize=9.5)
        axes.set_xlabel("streams at once")
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    return figure
