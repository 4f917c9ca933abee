"""The campaign's first 256 cases: mixtures of experts give the oracle's tokens."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.campaigns.routed_parity import SHAPES, differences


@pytest.mark.parametrize("index", range(len(SHAPES)))
def test_greedy_tokens_are_those_of_computing_every_expert(tmp_path: Path, index: int) -> None:
    assert list(differences(tmp_path, SHAPES[index], seed=index)) == []
