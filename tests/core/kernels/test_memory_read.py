from __future__ import annotations

import numpy as np
import pytest

from sabiyarn_edge._core import exclusive_or


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 1000])
def test_every_word_is_read_once(count: int) -> None:
    words = np.random.default_rng(count).integers(0, 2**64, count, np.uint64)
    assert exclusive_or(words) == int(np.bitwise_xor.reduce(words))
