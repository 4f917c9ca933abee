"""A batch job that is killed once at a random moment. The long run: see batch_kills.py."""

from __future__ import annotations

import random
from pathlib import Path

from tests.campaigns.batch_kills import run_campaign


def test_a_killed_job_gives_the_bytes_of_a_whole_one(text_model: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown when this fails
    assert run_campaign(1, seed, str(text_model), lines=600)["kills"] == 1
