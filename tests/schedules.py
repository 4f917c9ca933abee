"""How much longer random schedules are: as they are with the other tests, or many times that (`pytest -m nightly`)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings

__all__ = ["LENGTHS", "schedule_settings"]

LENGTHS = [pytest.param(1, id="short"), pytest.param(4, id="long", marks=pytest.mark.nightly)]
"""Values of a test's parameter `longer`."""


def schedule_settings(longer: int, *, schedules: int, steps: int) -> settings:
    """Settings of a state machine: `longer` times the steps, and its square times the schedules."""
    options: dict[str, Any] = {"database": None} if longer > 1 else {}
    return settings(max_examples=schedules * longer**2, stateful_step_count=steps * longer, **options)
