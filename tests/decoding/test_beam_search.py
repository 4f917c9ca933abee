"""Beam search and beam sampling in DecodeState: against the twin, and the properties that callers rely on."""

from __future__ import annotations

import random

import numpy as np
import pytest

from sabiyarn_edge import _core
from tests.decoding.option_sets import random_case
from tests.decoding.toy import TableModel, decode
from tests.decoding.twin_beam_search import BeamTwin


def search(twin, model, prompt, **options):
    """The pool of a twin that has searched."""
    from sabiyarn_edge._core_testing import log_softmax

    def log_probs(tokens):
        row = model.logits([*prompt, *tokens]).copy()
        log_softmax(row)
        return row

    return twin(log_probs, **options).run()


@pytest.mark.parametrize("seed", range(300))
def test_search_equals_the_twin(seed):
    rng = random.Random(seed)
    vocab_size = rng.choice([5, 8, 20])
    # Peaked logits tell the ways of stopping apart: a lead that later tokens cannot, or can, make up for.
    model = TableModel(
        seed, vocab_size, levels=rng.choice([None, 3]), scale=rng.choice([2.0, 2.0, 8.0, 25.0])
    )
    prompt = [rng.randrange(vocab_size) for _ in range(rng.randint(1, 3))]
    ends = rng.sample(range(vocab_size), rng.randint(0, 3))
    options = {
        "num_beams": rng.randint(2, 7),
        "max_new_tokens": rng.randint(1, 12),
        "length_penalty": rng.choice([-1.5, 0.0, 1.0, 2.0]),
        "early_stopping": rng.choice([True, False, "never"]),
    }
    twin = search(BeamTwin, model, prompt, ends=ends, **options)
    state = decode(
        model,
        [prompt],
        _core.DecodeOptions(eos_token_id=ends, num_return_sequences=options["num_beams"], **options),
    )
    assert state.sequences() == [[*prompt, *entry.tokens] for entry in twin]
    assert state.sequences_scores() == [float(entry.score) for entry in twin]
    assert [bool(reason) for reason in state.finish_reasons()] == [entry.finished for entry in twin]


def tells_apart(wrong, model, prompt, ends, options):
    """Whether a twin that decides otherwise finds other sequences than the search, which must find the twin's."""
    expected, others = (
        [entry.tokens for entry in search(twin, model, prompt, ends=ends, **options)]
        for twin in (BeamTwin, wrong)
    )
    decoded = decode(
        model,
        [prompt],
        _core.DecodeOptions(eos_token_id=ends, num_return_sequences=options["num_beams"], **options),
    )
    assert decoded.sequences() == [[*prompt, *tokens] for tokens in expected]
    return expected != others


@pytest.mark.parametrize("length_penalty", [-2.0, -1.0, -0.5])
def test_never_measures_at_the_length_so_far_where_the_penalty_is_negative(length_penalty):
    """Later tokens make such scores worse: measured at the longest length, the search would end too early."""

    class AtTheLongest(BeamTwin):
        def measures_the_longest(self):
            return True

    told_apart = 0
    for seed in range(80):
        rng = random.Random(seed)
        vocab_size = rng.choice([4, 5, 8])
        model = TableModel(seed, vocab_size, scale=rng.choice([8.0, 25.0]))
        ends = rng.sample(range(vocab_size), rng.randint(1, 2))
        options = {"num_beams": rng.randint(2, 5), "max_new_tokens": rng.choice([6, 12, 20])}
        options |= {"length_penalty": length_penalty, "early_stopping": "never"}
        told_apart += tells_apart(AtTheLongest, model, [0], ends, options)
    assert told_apart >= 3  # the logits are peaked enough


class Recording(TableModel):
    """Knows the longest text that it was asked about."""

    longest = 0

    def logits(self, ids):
        self.longest = max(self.longest, len(ids))
        return super().logits(ids)


def test_never_ends_where_the_longest_of_new_tokens_cannot_win():
    """Prompts are longer here than what comes: measured with them, the search finds the same, and takes longer."""

    class WithThePrompt(BeamTwin):
        def can_improve(self, best):
            self.max_new_tokens += 40
            try:
                return super().can_improve(best)
            finally:
                self.max_new_tokens -= 40

    told_apart = 0
    for seed in range(80):
        rng = random.Random(seed)
        vocab_size, scale = rng.choice([4, 5, 8]), rng.choice([2.0, 8.0])
        twin, other, found = (Recording(seed, vocab_size, scale=scale) for _ in range(3))
        prompt, ends = [rng.randrange(vocab_size) for _ in range(40)], rng.sample(range(vocab_size), 1)
        options = {"num_beams": rng.randint(2, 4), "max_new_tokens": 8}
        options |= {"length_penalty": rng.choice([0.5, 1.0]), "early_stopping": "never"}
        search(BeamTwin, twin, prompt, ends=ends, **options)
        search(WithThePrompt, other, prompt, ends=ends, **options)
        decode(found, [prompt], _core.DecodeOptions(eos_token_id=ends, **options))
        assert found.longest == twin.longest
        told_apart += other.longest != twin.longest
    assert told_apart >= 3


def test_a_penalty_beyond_all_numbers_leaves_scores_that_can_be_ranked():
    """12 ** 400 is infinite in float64: all scores would be 0."""
    model = TableModel(3, 8)
    options = _core.DecodeOptions(
        num_beams=3, num_return_sequences=3, max_new_tokens=12, length_penalty=400.0
    )
    scores = decode(model, [[1]], options).sequences_scores()
    assert all(-np.inf < score < 0 for score in scores)
    assert scores == sorted(scores, reverse=True) and len({*scores}) == 3


def test_each_end_token_adds_a_candidate_of_every_beam():
    """Else more than num_beams of the candidates may end, and a beam that could go on is not among them."""

    class TwoOfEveryBeam(BeamTwin):
        def best_candidates(self, beams):
            return super().best_candidates(beams)[: 2 * self.num_beams]

    told_apart = 0
    for seed in range(60):
        rng = random.Random(seed)
        vocab_size = rng.choice([5, 6, 8])
        model = TableModel(seed, vocab_size, scale=rng.choice([0.5, 2.0, 8.0]))
        ends = rng.sample(range(vocab_size), rng.choice([3, 4]))
        options = {"num_beams": rng.randint(2, 5), "max_new_tokens": rng.choice([4, 8, 12])}
        options |= {"length_penalty": 2.0, "early_stopping": "never"}
        told_apart += tells_apart(TwoOfEveryBeam, model, [0], ends, options)
    assert told_apart >= 3


@pytest.mark.parametrize("seed", range(40))
def test_scores_lower_than_those_of_beams_that_have_not_begun(seed):
    """These have -1e9, by which the first step ranks them; a model may give less than that."""
    rng = random.Random(seed)
    vocab_size = rng.choice([5, 8, 20])
    model = TableModel(seed, vocab_size, scale=2e9)
    options = {"num_beams": rng.randint(2, 5), "max_new_tokens": rng.randint(1, 6)}
    expected = search(BeamTwin, model, [0], **options)
    decoded = decode(model, [[0]], _core.DecodeOptions(num_return_sequences=options["num_beams"], **options))
    assert decoded.sequences() == [[0, *entry.tokens] for entry in expected]


def beam_options(seed, **more):
    options = {**random_case(seed, beams=True).options, **more}
    options.pop("no_repeat_ngram_size", None)  # may leave no token at all, which is tested elsewhere
    return options


@pytest.mark.parametrize("do_sample", [False, True], ids=["search", "sample"])
@pytest.mark.parametrize("seed", range(25))
def test_a_prompt_alone_gives_what_it_gives_in_a_batch(seed, do_sample):
    case = random_case(seed, beams=True)
    options = beam_options(seed, do_sample=do_sample, top_k=5, seeds=seed)
    model = TableModel(seed, case.vocab_size)
    prompts = [[1], [2, 3], [0, 1, 2, 3]]
    together = decode(model, prompts, _core.DecodeOptions(**options))
    alone = [decode(model, [prompt], _core.DecodeOptions(**options)) for prompt in prompts]
    assert together.sequences() == [sequence for state in alone for sequence in state.sequences()]
    assert together.sequences_scores() == [score for state in alone for score in state.sequences_scores()]
    assert together.finish_reasons() == [reason for state in alone for reason in state.finish_reasons()]


@pytest.mark.parametrize("do_sample", [False, True], ids=["search", "sample"])
@pytest.mark.parametrize("seed", range(25))
def test_token_scores_add_up_to_the_sequence_score(seed, do_sample):
    options = beam_options(seed, do_sample=do_sample, top_k=0, return_scores=True)
    model = TableModel(seed, random_case(seed, beams=True).vocab_size)
    state = decode(model, [[1, 2]], _core.DecodeOptions(**options))
    for sequence, scores, total, reason in zip(
        state.sequences(), state.scores(), state.sequences_scores(), state.finish_reasons(), strict=True
    ):
        assert len(scores) == len(sequence) - 2
        if reason and total > -1e8:
            assert sum(scores) / len(scores) ** options["length_penalty"] == pytest.approx(
                total, rel=1e-4, abs=1e-4
            )


@pytest.mark.parametrize("seed", range(40))
def test_certain_tokens_only_grow_and_are_a_prefix_of_the_result(seed):
    case = random_case(seed, beams=True)
    options = beam_options(seed)
    model = TableModel(seed, case.vocab_size, scale=4.0)
    prompts = [[1, 2], [3]]
    state = _core.DecodeState(_core.DecodeOptions(**options), case.vocab_size, prompts)
    count = len(prompts) * options["num_return_sequences"]
    certain = [[] for _ in range(count)]
    rows = [list(prompt) for prompt in prompts]
    seen_early = []
    while not state.finished:
        state.advance(np.stack([model.logits(row) for row in rows]))
        rows = [state.history_of(row) for row in range(state.num_rows)]
        for output in range(count):
            now = state.certain_tokens(output)
            assert now[: len(certain[output])] == certain[output]
            certain[output] = now
        seen_early.append(sum(map(len, certain)))
    prompt_of = [prompt for prompt in prompts for _ in range(options["num_return_sequences"])]
    assert state.sequences() == [prompt + tokens for prompt, tokens in zip(prompt_of, certain, strict=True)]
    assert seen_early == sorted(seen_early)


def test_certain_tokens_come_before_the_end_where_beams_agree():
    """One token of every step but the last two is nearly sure, so all beams share it soon."""
    state = _core.DecodeState(_core.DecodeOptions(num_beams=3, max_new_tokens=10), 8, [[0]])
    lengths = []
    while not state.finished:
        logits = np.zeros((state.num_rows, 8), np.float32)
        logits[:, 5] = 20.0 if len(lengths) % 3 else 2.0
        state.advance(logits)
        lengths.append(len(state.certain_tokens(0)))
    assert lengths[-1] == 10
    assert max(lengths[:-1]) >= 3


@pytest.mark.parametrize("way", ["cancel", "time", "criterion"])
def test_an_end_from_outside_returns_the_best_beams_so_far(way):
    options = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 9, "length_penalty": 0.0}
    if way == "time":
        options["max_time_s"] = 1e-9
    model = TableModel(4, 12)
    state = _core.DecodeState(_core.DecodeOptions(**options), 12, [[1], [2]])
    if way == "cancel":
        state.cancel()
    logits = np.stack([model.logits([1]), model.logits([2])])
    best = [np.argsort(-row, kind="stable")[:2].tolist() for row in logits]
    state.process(logits)
    state.propose(logits)
    state.commit([True] * len(state.candidates()) if way == "criterion" else None)
    assert state.finished
    assert state.finish_reasons() == [{"cancel": "cancelled", "time": "time", "criterion": "stop"}[way]] * 4
    assert state.sequences() == [[1, t] for t in best[0]] + [[2, t] for t in best[1]]


def test_extra_hits_end_the_candidates_they_name():
    state = _core.DecodeState(
        _core.DecodeOptions(num_beams=2, max_new_tokens=5, early_stopping=True), 6, [[0]]
    )
    logits = np.array([[5, 4, 3, 2, 1, 0]], np.float32)
    state.process(logits)
    state.propose(logits)
    assert state.candidates() == [(0, 0), (0, 1), (0, 2), (0, 3)]
    state.commit([True, False, False, False])
    assert state.next_tokens.tolist() == [1, 2]
    assert state.row_sources.tolist() == [0, 0]
    assert state.sequences()[0] == [0, 0]


def test_stop_strings_end_beams():
    tokens = _core.TokenBytes([b"a", b"b", b"c", b"d"])
    options = _core.DecodeOptions(
        num_beams=2, num_return_sequences=2, max_new_tokens=6, stop_strings=[b"ab"], token_bytes=tokens
    )
    state = decode(TableModel(1, 4), [[0], [3]], options)
    for sequence, reason in zip(state.sequences(), state.finish_reasons(), strict=True):
        text = b"".join(tokens[i] for i in sequence)
        assert (b"ab" in text) == (reason == "stop")
        assert text.find(b"ab") in (-1, len(text) - 2)


def test_a_row_without_tokens_ends_its_beam_not_the_search():
    state = _core.DecodeState(_core.DecodeOptions(num_beams=2, max_new_tokens=3), 5, [[0]])
    state.advance(np.arange(5, dtype=np.float32)[None])
    logits = np.zeros((2, 5), np.float32)
    state.process(logits)
    logits[0] = -np.inf
    state.propose(logits)
    assert {row for row, _ in state.candidates()} == {1}
    state.commit()
    assert all(source == 1 for source in state.row_sources)


def test_errors_name_the_row_and_leave_the_state_as_it_was():
    state = _core.DecodeState(_core.DecodeOptions(num_beams=2, max_new_tokens=3), 5, [[0], [1]])
    state.advance(np.arange(10, dtype=np.float32).reshape(2, 5))
    logits = np.zeros((4, 5), np.float32)
    logits[3, 2] = np.nan
    with pytest.raises(ValueError, match=r"^scores: row 3 holds NaN \(first at token id 2\)"):
        state.advance(logits)
    logits = np.zeros((4, 5), np.float32)
    state.process(logits)
    logits[2:] = -np.inf
    with pytest.raises(ValueError, match=r"^scores: row 2 is -inf for every token"):
        state.propose(logits)
    with pytest.raises(ValueError, match="nothing was proposed"):
        state.commit()
    state.advance(np.zeros((4, 5), np.float32))
    assert not state.finished


def test_beam_sampling_is_a_function_of_the_seed():
    model = TableModel(2, 30)
    options = {"num_beams": 3, "do_sample": True, "top_k": 0, "max_new_tokens": 8, "num_return_sequences": 3}
    runs = [
        decode(model, [[1]], _core.DecodeOptions(seeds=seed, **options)).sequences() for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_more_returns_than_beams_is_refused():
    with pytest.raises(ValueError, match="num_return_sequences is 3, but num_beams is 2"):
        _core.DecodeState(
            _core.DecodeOptions(num_beams=2, num_return_sequences=3, max_new_tokens=1), 5, [[0]]
        )
