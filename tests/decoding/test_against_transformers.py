"""Greedy and beam search, token for token what generate() of Hugging Face transformers gives."""

from __future__ import annotations

import logging

import pytest

from sabiyarn_edge import _core
from tests.decoding.option_sets import random_case
from tests.decoding.toy import TableModel, decode

pytest.importorskip("transformers")

from tests.decoding.hf_toy import hf_generate, ties_by_index, transition_scores

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


USERS_CALL = {"max_new_tokens": 100, "num_beams": 5, "length_penalty": 1.2, "early_stopping": True}


@pytest.mark.parametrize("seed", range(3))
def test_the_beam_search_of_sabiyarns_users(seed):
    model = TableModel(seed, 300, scale=3.0)
    options = {**USERS_CALL, "eos_token_id": 7, "repetition_penalty": 2.0}
    theirs = hf_generate(model, [[5, 9, 11]], **options)
    ours = decode(model, [[5, 9, 11]], _core.DecodeOptions(**options))
    assert ours.sequences() == theirs.sequences.tolist()
    assert ours.sequences_scores() == pytest.approx(theirs.sequences_scores.tolist(), abs=1e-4)


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("seed", range(10))
def test_prefix_allowed_tokens(seed, num_beams):
    """Which tokens may follow hangs on the prompt and on the newest token; now and then it is one alone."""
    model = TableModel(seed, 12)

    def allowed(prompt, ids):
        last = int(ids[-1])
        return [(last + 3) % 12] if last % 4 == 0 else [i for i in range(12) if (i + prompt + last) % 2]

    options = {"max_new_tokens": 8, "num_beams": num_beams, "eos_token_id": 11}
    with ties_by_index():
        theirs = hf_generate(model, [[1, 2], [4, 5]], prefix_allowed_tokens_fn=allowed, **options)
    ours = decode(model, [[1, 2], [4, 5]], _core.DecodeOptions(**options), allowed)
    for mine, padded in zip(ours.sequences(), theirs.sequences.tolist(), strict=True):
        assert padded[: len(mine)] == mine


@pytest.mark.parametrize("options", [{}, {"num_beams": 4, "length_penalty": 0.5}], ids=["greedy", "beams"])
@pytest.mark.parametrize("seed", range(5))
def test_token_scores_are_the_transition_scores(seed, options):
    """Normalized without beams; with beams the processed log-probabilities that make up the sequence's score."""
    model = TableModel(seed, 20)
    options = {"max_new_tokens": 6, "repetition_penalty": 1.3, **options}
    theirs = hf_generate(model, [[1, 2], [3, 4]], **options)
    expected = transition_scores(model, theirs, normalize="num_beams" not in options).numpy()
    ours = decode(model, [[1, 2], [3, 4]], _core.DecodeOptions(return_scores=True, **options))
    assert ours.sequences() == theirs.sequences.tolist()
    for mine, row in zip(ours.scores(), expected, strict=True):
        assert mine == pytest.approx(row.tolist(), abs=2e-5)
