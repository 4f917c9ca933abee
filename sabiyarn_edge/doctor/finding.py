"""Finding: one line of the doctor's report."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Finding", "Status"]

Status = Literal["ok", "warning", "problem"]
"""warning: it runs, but worse than it could. problem: it does not run."""


@dataclass(frozen=True)
class Finding:
    """What was looked at, and what was found."""

    name: str
    status: Status
    text: str
    remedy: str = ""
    """What to do; of everything but what is ok."""
    facts: dict[str, Any] = field(default_factory=dict)
    """The same for programs; sizes are bytes."""

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return dataclasses.asdict(self)
