"""The forms that the published pages of all benchmarks share: tables, pictures, and notes about a run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.committed import Result, devices

__all__ = ["MIB", "OURS", "bold_if_ours", "picture", "skipped", "table", "versions", "where"]

MIB = 2**20
OURS = "sabiyarn_edge"


def _with(machine: dict[str, Any]) -> str:
    """Name the instructions that matmuls use: the name of a virtual machine's CPU does not tell."""
    return f" ({machine['instruction_set']})" if "instruction_set" in machine else ""


def where(result: Result) -> str:
    """Device and date in one phrase."""
    machine = result["machine"]
    threads = f", {result['threads']} threads" if "threads" in result else ""
    return f"{machine['cpu']}{_with(machine)}, {machine['cpus']} CPUs{threads}, {machine['date']}"


def versions(result: Result) -> str:
    """The other packages that took part."""
    found = result["machine"]["versions"]
    return ", ".join(f"{name} {version}" for name, version in found.items() if name != "sabiyarn-edge")


def table(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    """The lines of a table whose first column is text, and the others numbers."""
    return [
        f"| {' | '.join(header)} |",
        f"|---{'|---:' * (len(header) - 1)}|",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def bold_if_ours(name: str) -> str:
    """A name of an engine; this package's in bold."""
    return f"**{name}**" if name.startswith(OURS) else name


def picture(benchmark: str, folder: str) -> str:
    """The picture of a benchmark, which lies in `folder` as seen from the page."""
    labels = {
        "engines": "Decode, prefill and memory of each engine",
        "growth": "Decode, prefill, memory and batch",
        "servers": "Throughput and first tokens against the number of streams",
    }
    return f"![{labels[benchmark]}]({folder}/{devices()[0]}_{benchmark}.svg)"


def skipped(result: Result) -> str:
    """A paragraph that names what was not measured, with the reasons; "" if all was."""
    if not result["skipped"]:
        return ""
    return "\n\nSkipped: " + "; ".join(f"{name} ({why})" for name, why in result["skipped"].items()) + "."
