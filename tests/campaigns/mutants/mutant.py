"""Mutant: one decision of the program changed on purpose, and the tests that must notice it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Mutant"]


@dataclass(frozen=True)
class Mutant:
    """A change of one place in one file."""

    file: str
    """From the root of the checkout."""
    old: str
    """Occurs once in the file."""
    new: str
    tests: tuple[str, ...]
    """Files that pytest is given; one test that fails has noticed the change."""

    @property
    def name(self) -> str:
        """The change in one line."""
        return f"{self.file}: {' '.join(self.old.split())} -> {' '.join(self.new.split())}"

    @property
    def is_native(self) -> bool:
        """Whether the compiled modules have to be built anew."""
        return self.file.startswith("csrc/")

    def applied_to(self, text: str) -> str:
        """The file's text with the change.

        Raises:
            ValueError: the place is not there, or not the only one.
        """
        if text.count(self.old) != 1:
            raise ValueError(
                f"{self.file} holds {text.count(self.old)} times: {self.old!r}. Adapt the mutant."
            )
        return text.replace(self.old, self.new)

    def apply(self, root: Path) -> None:
        """Change the file in a copy of the checkout."""
        path = root / self.file
        path.write_text(self.applied_to(path.read_text(encoding="utf-8")), encoding="utf-8")
