"""Writers killed at a random moment. The long run: see kills.py. Every line of a write: see test_atomic_write.py."""

from __future__ import annotations

import random

import pytest

pytest.importorskip("torch")

from tests.campaigns.kills import WRITERS, kill_repeatedly


@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_left_is_one_of_the_two_states(writer: str) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown when this fails
    assert kill_repeatedly(writer, 1, seed)["kills"] == 1
