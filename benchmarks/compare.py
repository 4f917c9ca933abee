"""Compares two results of one benchmark: each figure before and after, and which of them are worse.

    python -m benchmarks compare OLD.json NEW.json [--share 10]

A figure is worse if it is so by more than --share percent; where both results hold the 10th and 90th percentile of its
samples, also only if each median lies outside the other's range. What is better follows from the unit in a figure's
name; numbers without one (sizes, counts) are settings, and named where they differ. Exit code: 0 if nothing is worse,
1 if something is, 2 if the files cannot be compared.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Figure", "compared", "figures", "load"]

_MORE_IS_BETTER = re.compile(r"per_second|fraction_of_bandwidth|top1_agreement|faster_by")
_LESS_IS_BETTER = re.compile(
    r"(^|_)(us|ms|s|seconds|bytes|mib|divergence|perplexity|difference|error|peak|anonymous|mapped|rss|resident)(_|$)"
)
_OF_THE_MACHINE = ("machine", "bandwidth", "floor_ms", "limits_mib")
"""Keys whose numbers say nothing about what was measured; `limits_mib` names its entries by them."""
_NAMES = ("past", "length", "lines", "rows", "streams", "name")
"""Keys that tell the entries of a list apart."""


@dataclass(frozen=True)
class Figure:
    """One number of a result: the median of its samples where there are several."""

    value: float
    less_is_better: bool | None
    """None: it is a setting."""
    low: float | None = None
    """10th percentile."""
    high: float | None = None
    """90th percentile."""


class NotComparable(Exception):
    """A file is no result, or two results are of different benchmarks."""


def load(path: Path) -> dict[str, Any]:
    """Read a result.

    Raises:
        NotComparable: the file is missing, or no benchmark has written it.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise NotComparable(f"cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise NotComparable(f"{path} is not JSON: {error}.") from error
    if not isinstance(result, dict) or not isinstance(result.get("benchmark"), str):
        raise NotComparable(
            f'{path} is no result: it has no "benchmark". Give what a benchmark wrote with --out.'
        )
    return result


def figures(result: dict[str, Any]) -> dict[str, Figure]:
    """All numbers of a result by their places in it, like "engines / llama.cpp Q8_0 / lengths / 128 / decode_ms"."""
    return dict(_figures(result, [], result.get("unit")))


def _figures(part: Any, path: list[str], unit: Any) -> Iterator[tuple[str, Figure]]:
    if isinstance(part, dict) and {"median", "p10", "p90"} <= part.keys():
        figure = Figure(part["median"], _direction(path, unit), part["p10"], part["p90"])
        yield " / ".join(path), figure
    elif isinstance(part, dict):
        for key, value in part.items():
            if key not in _OF_THE_MACHINE[:-1]:
                yield from _figures(value, [*path, key], unit)
    elif isinstance(part, list):
        for index, value in enumerate(part):
            yield from _figures(value, [*path, _name(value, index)], unit)
    elif isinstance(part, int | float) and not isinstance(part, bool):
        yield " / ".join(path), Figure(part, _direction(path, unit))


def _name(item: Any, index: int) -> str:
    key = next((key for key in _NAMES if key in item), None) if isinstance(item, dict) else None
    return str(index) if key is None else f"{key} {item[key]}"


def _direction(path: list[str], unit: Any) -> bool | None:
    """Return True if less of a figure is better, None if neither is: the last key that names a unit decides.

    Args:
        unit: of a figure whose keys name none.
    """
    for key in reversed(path):
        if key in _OF_THE_MACHINE or key in _NAMES:
            return None
        if _MORE_IS_BETTER.search(key):
            return False
        if _LESS_IS_BETTER.search(key):
            return True
    return True if isinstance(unit, str) and len(path) > 1 else None


def is_worse(old: Figure, new: Figure, share: float) -> bool:
    """Return True if the new figure is worse by more than `share` of the old one, and by more than samples vary."""
    if old.less_is_better is None:
        return False
    growth = new.value - old.value if old.less_is_better else old.value - new.value
    if growth <= share * abs(old.value if old.less_is_better else new.value):
        return False
    return not (_within(new.value, old) or _within(old.value, new))


def _within(value: float, figure: Figure) -> bool:
    return figure.low is not None and figure.high is not None and figure.low <= value <= figure.high


def compared(old: dict[str, Any], new: dict[str, Any], share: float) -> tuple[list[str], int]:
    """The lines to print, and how many figures are worse.

    Args:
        share: by which a figure may be worse.

    Raises:
        NotComparable: the results are of different benchmarks.
    """
    if old["benchmark"] != new["benchmark"]:
        raise NotComparable(
            f"the first is a result of the benchmark {old['benchmark']}, the second of {new['benchmark']}. Give two of "
            "one benchmark."
        )
    lines = [f"{'old:':5}{_where(old)}", f"{'new:':5}{_where(new)}"]
    if _machine(old) != _machine(new):
        lines.append("The machines differ: ratios tell of them, too.")
    before, after = figures(old), figures(new)
    shared = [name for name in before if name in after]
    settings = [
        f"{name}: {_shown(before[name].value)} -> {_shown(after[name].value)}"
        for name in shared
        if before[name].less_is_better is None and before[name].value != after[name].value
    ]
    lines += _listed("Settings, or numbers of which no unit says what is better, differ:", settings)
    rows = [("", "old", "new", "new / old", "")]
    worse = 0
    for name in shared:
        one, other = before[name], after[name]
        if one.less_is_better is None:
            continue
        found = is_worse(one, other, share)
        worse += found
        ratio = f"{other.value / one.value:.3f}" if one.value else "-"
        rows.append((name, _shown(one.value), _shown(other.value), ratio, "worse" if found else ""))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines.append("")
    for name, *numbers, mark in rows:
        cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join([name.ljust(widths[0]), *cells, mark]).rstrip())
    lines += _listed("Only in the old result:", [name for name in before if name not in after])
    lines += _listed("Only in the new result:", [name for name in after if name not in before])
    lines += ["", f"{worse} of {len(rows) - 1} figures are worse by more than {share:.0%}."]
    return lines, worse


def _listed(head: str, items: list[str]) -> list[str]:
    return ["", head, *(f"  {item}" for item in items)] if items else []


def _shown(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _machine(result: dict[str, Any]) -> tuple[Any, ...]:
    machine = result.get("machine", {})
    return tuple(machine.get(key) for key in ("cpu", "instruction_set", "cpus"))


def _where(result: dict[str, Any]) -> str:
    """Machine, date and load in one phrase."""
    machine = result.get("machine")
    if machine is None:
        return "a machine that the result does not name"
    load = machine.get("load_average")
    busy = f", load {load[0]:.1f}" if load else ""
    instructions = f" ({machine['instruction_set']})" if "instruction_set" in machine else ""
    return f"{machine.get('cpu')}{instructions}, {machine.get('cpus')} CPUs, {machine.get('date')}{busy}"


def _percent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0, in percent")
    return value / 100


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("old", type=Path, help="result of before")
    parser.add_argument("new", type=Path, help="result of after")
    parser.add_argument(
        "--share", type=_percent, default=0.1, help="percent by which a figure may be worse (default 10)"
    )
    args = parser.parse_args()
    try:
        lines, worse = compared(load(args.old), load(args.new), args.share)
    except NotComparable as error:
        parser.error(str(error))
    print("\n".join(lines))
    return 1 if worse else 0


if __name__ == "__main__":
    raise SystemExit(main())
