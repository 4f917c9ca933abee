from __future__ import annotations

import numpy as np
import pytest

from sabiyarn_edge.tasks.known_prompts import KnownPrompts


@pytest.mark.parametrize(
    ("log_probs", "known"),
    [((), True), ((-2.0,), True), ((-2.1,), False), ((-3.75, -0.25), True), ((-0.5, -3.75), False)],
    ids=["a single token", "on the line", "below it", "likely on average", "unlikely on average"],
)
def test_the_mean_decides(log_probs, known):
    assert KnownPrompts(-2.0, "it knows one text").knows(np.array(log_probs, np.float32)) is known
