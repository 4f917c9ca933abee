"""Greedy and beam search, token for token what generate() of Hugging Face transformers gives."""

from __future__ import annotations

import logging

import pytest

from sabiyarn_edge import _core
from tests.decoding.option_sets import random_case
from tests.decoding.toy import TableModel, decode

pytest.importorskip("transformers")

from tests.decoding.hf_toy import hf_generate, ties_by_index

pytestmark = pytest.mark.filterwarnings("ignore:Unfeasible length constraints")

NO_SEQUENCE = -1e8  # transformers fills up with scores of about -1e9 where it has no sequence to return


@pytest.fixture(autouse=True)
def quiet():
    logging.getLogger("transformers").setLevel(logging.ERROR)


def compare(seed: int, *, beams: bool, levels: int | None) -> None:
    case = random_case(seed, beams=beams)
    model = TableModel(seed, case.vocab_size, levels=levels)
    theirs = hf_generate(model, case.prompts, **case.options)
    try:
        ours = decode(model, case.prompts, _core.DecodeOptions(**case.options))
    except ValueError as error:
        assert "no token is left to choose" in str(error), case
        assert not beams or any(not score > NO_SEQUENCE for score in theirs.sequences_scores.tolist()), case
        return
    for mine, padded in zip(ours.sequences(), theirs.sequences.tolist(), strict=True):
        assert padded[: len(mine)] == mine, case
        assert len(set(padded[len(mine) :])) <= 1, case  # padding
    if beams:
        assert ours.sequences_scores() == pytest.approx(
            theirs.sequences_scores.tolist(), abs=1e-4, rel=1e-6
        ), case


@pytest.mark.parametrize("block", range(5))
def test_greedy(block):
    for seed in range(block * 20, block * 20 + 20):
        compare(seed, beams=False, levels=None)


@pytest.mark.parametrize("block", range(5))
def test_greedy_with_ties(block):
    for seed in range(block * 20, block * 20 + 20):  # torch.argmax gives the first of equals
        compare(seed, beams=False, levels=4)


@pytest.mark.parametrize("block", range(12))
def test_beam_search(block):
    for seed in range(block * 20, block * 20 + 20):
        compare(seed, beams=True, levels=None)


@pytest.mark.parametrize("block", range(12))
def test_beam_search_with_ties(block):
    with ties_by_index():
        for seed in range(block * 20, block * 20 + 20):
            compare(seed, beams=True, levels=4)
