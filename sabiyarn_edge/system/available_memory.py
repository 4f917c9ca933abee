"""Reads how much memory this process can still take, within the machine and its control groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .control_groups import control_groups

__all__ = ["AvailableMemory"]

_UNLIMITED = 2**60  # bytes: version 1 says 2**63, rounded to pages, where there is no limit


@dataclass(frozen=True)
class AvailableMemory:
    """Available memory in bytes; None where the system does not tell."""

    total: int | None
    """RAM of the machine."""
    available: int | None
    """Memory that the machine can give without swapping."""
    swap: int
    """Swap space of the machine."""
    free_swap: int
    group_limit: int | None
    """Limit of the control group that has the least left; None if there is no limit."""
    group_left: int | None
    """Rest of that limit. Pages of files count as free, because they can be dropped."""

    @classmethod
    def read(cls, root: Path = Path("/")) -> AvailableMemory:
        """Read the current state.

        Args:
            root: where /proc and /sys are; tests have others.

        Source: proc(5) for /proc/meminfo, cgroups(7).
        """
        meminfo = _meminfo(root)
        limit, left = _tightest_group(root)
        return cls(
            total=meminfo.get("MemTotal"),
            available=meminfo.get("MemAvailable"),
            swap=meminfo.get("SwapTotal", 0),
            free_swap=meminfo.get("SwapFree", 0),
            group_limit=limit,
            group_left=left,
        )

    @property
    def here(self) -> int | None:
        """Memory that this process can take without swapping."""
        known = [size for size in (self.available, self.group_left) if size is not None]
        return min(known) if known else None


def _meminfo(root: Path) -> dict[str, int]:
    """Bytes by their name in /proc/meminfo."""
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        name, _, rest = line.partition(":")
        words = rest.split()
        if words and words[0].isdigit():
            found[name] = int(words[0]) * 1024  # the kernel counts in KiB
    return found


def _tightest_group(root: Path) -> tuple[int | None, int | None]:
    """Limit and rest of the control group that has the least left, of both versions."""
    found: list[tuple[int, int]] = []
    for group in control_groups(root, "memory"):
        for limit_file, usage_file in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            limit, usage = _number(group / limit_file), _number(group / usage_file)
            if limit is not None and usage is not None and limit < _UNLIMITED:
                found.append((limit, max(limit - usage + min(_file_pages(group), usage), 0)))
    return min(found, key=lambda pair: pair[1]) if found else (None, None)


def _file_pages(group: Path) -> int:
    """Bytes of files that the group keeps in memory and can drop."""
    try:
        words = (group / "memory.stat").read_text(encoding="ascii").split()
        stat = dict(zip(words[::2], map(int, words[1::2]), strict=False))
    except (OSError, ValueError):
        return 0
    return stat.get("inactive_file", 0) + stat.get("active_file", 0)


def _number(path: Path) -> int | None:
    """The number in a file; None if there is none ("max")."""
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
