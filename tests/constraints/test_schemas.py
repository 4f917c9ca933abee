"""A few random schemas on nano and on a random model; tests/campaigns/schemas.py runs hundreds."""

from __future__ import annotations

from pathlib import Path

import pytest

from sabiyarn_edge import EdgeGenerator
from tests.constraints.proof import prove

pytest.importorskip("llguidance")


@pytest.mark.parametrize("model", ["nano", "random"])
def test_outputs_fit_their_schemas(model: str, text_model: Path) -> None:
    generator = EdgeGenerator.from_pretrained("nano" if model == "nano" else text_model, num_threads=1)
    reasons = prove(generator, range(8), prompt="<eng> Everyone", max_new_tokens=80)
    assert reasons["stop"] + reasons["eos"] > 10
