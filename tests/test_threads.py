"""How many threads run, and that none keeps a CPU busy while there is nothing to do."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import sabiyarn_edge.engine.decoder as session_module
from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.engine.decoder import Decoder


def test_no_more_threads_than_cpus_at_hand(text_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_module, "usable_cpus", lambda: 2)
    for asked, given in ((None, 2), (1, 1), (2, 2), (64, 2)):
        assert Decoder(text_model, num_threads=asked).num_threads == given


@pytest.mark.parametrize("low_power", [False, True])
def test_no_thread_spins_between_calls(text_model: Path, low_power: bool) -> None:
    generator = EdgeGenerator.from_pretrained(text_model, low_power=low_power)
    generator.generate([1, 2, 3], max_new_tokens=20, eos_token_id=None)
    before = time.process_time()
    time.sleep(0.1)
    assert time.process_time() - before < 0.01  # one spinning thread would have taken up to 0.04 s


def test_low_power_gives_the_same_tokens(text_model: Path) -> None:
    options = {"max_new_tokens": 20, "eos_token_id": None}
    usual = EdgeGenerator.from_pretrained(text_model).generate([1, 2, 3], **options)
    frugal = EdgeGenerator.from_pretrained(text_model, low_power=True).generate([1, 2, 3], **options)
    assert usual.sequences.tolist() == frugal.sequences.tolist()
