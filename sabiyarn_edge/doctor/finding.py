"""Finding is one line of the doctor's report."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Literal

__all__ = ["Finding", "Status"]

Status = Literal["ok", "warning", "problem"]
"""warning: it runs, but worse than it could. problem: it does not run."""


@dataclass(frozen=True)
class Finding:
    """The result of one examination."""

    name: str
    status: Status
    text: str
    remedy: str = ""
    """Advice for a warning or a problem; empty if ok."""
    facts: dict[str, Any] = field(default_factory=dict)
    """The finding for programs; sizes are bytes."""

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return dataclasses.asdict(self)
