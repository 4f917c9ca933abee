"""Window: how many lines of a job run at once, and how far reading runs ahead of writing.

Lines start in their order. There is no padding, so lines of different lengths cost nothing beside each other, and the
budget of positions alone bounds the memory.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Window"]


@dataclass
class Window:
    """The policy of one machine; plain arithmetic, which a simulation runs as it is.

    Args:
        most_rows: rows that run at once.
        most_positions: positions that these may have together, prompts and outputs.
        most_waiting: lines between the one that is written next and the one that is read next.
    """

    most_rows: int
    most_positions: int
    most_waiting: int
    rows: int = 0
    """Rows that run now."""
    positions: int = 0
    """Positions that they may have."""

    def admits(self, rows: int, positions: int) -> bool:
        """Whether a line may start beside those that run. A line that fits nowhere runs alone."""
        if self.rows == 0:
            return True
        return self.rows + rows <= self.most_rows and self.positions + positions <= self.most_positions

    def start(self, rows: int, positions: int) -> None:
        """A line starts."""
        self.rows += rows
        self.positions += positions

    def end(self, rows: int, positions: int) -> None:
        """It has ended."""
        self.rows -= rows
        self.positions -= positions
