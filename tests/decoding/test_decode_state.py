"""DecodeState: rows, ends, seeds, errors - without beams."""

from __future__ import annotations

import numpy as np
import pytest

from sabiyarn_edge import _core
from tests.decoding.toy import TableModel, decode

VOCAB = 23
PROMPTS = [[1, 2, 3], [7], [4, 4, 5, 6, 9]]


def greedy_by_hand(model: TableModel, prompt: list[int], ends: set[int], count: int) -> list[int]:
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(np.argmax(model.logits(ids))))
        if ids[-1] in ends:
            break
    return ids


@pytest.mark.parametrize("seed", range(20))
def test_greedy_takes_the_best_token_and_the_lower_id_of_equals(seed):
    model = TableModel(seed, VOCAB, levels=4)
    state = decode(model, PROMPTS, _core.DecodeOptions(max_new_tokens=12, eos_token_id=[5, 8]))
    assert state.sequences() == [greedy_by_hand(model, prompt, {5, 8}, 12) for prompt in PROMPTS]
    for sequence, prompt, reason in zip(state.sequences(), PROMPTS, state.finish_reasons(), strict=True):
        assert reason == ("eos" if sequence[-1] in (5, 8) else "length")
        assert len(sequence) <= len(prompt) + 12


def test_max_length_counts_the_prompt_and_max_new_tokens_wins():
    model = TableModel(0, VOCAB)
    assert [len(s) for s in decode(model, PROMPTS, _core.DecodeOptions(max_length=9)).sequences()] == [
        9,
        9,
        9,
    ]
    options = _core.DecodeOptions(max_length=9, max_new_tokens=2)
    assert [len(s) for s in decode(model, PROMPTS, options).sequences()] == [5, 3, 7]


def test_a_row_alone_gives_what_it_gives_in_a_batch():
    model = TableModel(3, VOCAB)
    options = {"max_new_tokens": 15, "eos_token_id": 5, "do_sample": True, "num_return_sequences": 3}
    seeds = [[11, 12, 13], [2**64 - 1, 0, 7], [5, 4, 3]]
    together = decode(
        model, PROMPTS, _core.DecodeOptions(seeds=[seed for own in seeds for seed in own], **options)
    ).sequences()
    alone = [
        sequence
        for prompt, own in zip(PROMPTS, seeds, strict=True)
        for sequence in decode(model, [prompt], _core.DecodeOptions(seeds=own, **options)).sequences()
    ]
    assert together == alone
    assert len({tuple(sequence) for sequence in together}) == 9  # the returned sequences differ


def test_last_tokens_are_what_the_commit_appended():
    model = TableModel(5, VOCAB)
    options = _core.DecodeOptions(max_new_tokens=9, eos_token_id=5, do_sample=True, num_return_sequences=2)
    state = _core.DecodeState(options, VOCAB, PROMPTS)
    outputs = [list(prompt) for prompt in PROMPTS for _ in range(2)]
    reasons = [""] * 6
    rows = [list(prompt) for prompt in PROMPTS]
    while not state.finished:
        state.advance(np.stack([model.logits(row) for row in rows]))
        for output, token, reason in state.last_tokens():
            outputs[output].append(token)
            reasons[output] = reason
        rows = [state.history_of(row) for row in range(state.num_rows)]
    assert outputs == state.sequences()
    assert reasons == state.finish_reasons()
    assert state.last_tokens() and all(reason for _, _, reason in state.last_tokens()[-1:])


def test_cancel_ends_every_row_at_the_next_commit():
    state = _core.DecodeState(_core.DecodeOptions(max_new_tokens=9), VOCAB, PROMPTS)
    state.advance(np.zeros((3, VOCAB), np.float32))
    state.cancel()
    state.advance(np.zeros((3, VOCAB), np.float32))
    assert state.finished
    assert state.finish_reasons() == ["cancelled"] * 3
    assert [len(s) for s in state.sequences()] == [5, 3, 7]


def test_max_time_ends_every_row():
    state = _core.DecodeState(_core.DecodeOptions(max_new_tokens=9, max_time_s=1e-9), VOCAB, PROMPTS)
    state.advance(np.zeros((3, VOCAB), np.float32))
    assert state.finished
    assert state.finish_reasons() == ["time"] * 3


def test_the_callers_criteria_end_the_rows_they_name():
    state = _core.DecodeState(_core.DecodeOptions(max_new_tokens=9), VOCAB, PROMPTS)
    logits = np.zeros((3, VOCAB), np.float32)
    state.process(logits)
    state.propose(logits)
    assert state.candidates() == [(0, 0), (1, 0), (2, 0)]
    state.commit([False, True, False])
    assert state.finish_reasons() == ["", "stop", ""]
    assert state.row_sources.tolist() == [0, 2]


def test_allowed_tokens_hold_for_one_step():
    state = _core.DecodeState(_core.DecodeOptions(max_new_tokens=2), VOCAB, [[1], [2]])
    state.set_allowed_tokens(1, [9, 4])
    logits = np.zeros((2, VOCAB), np.float32)
    logits[:, 9] = 1
    state.advance(logits.copy())
    state.advance(np.zeros((2, VOCAB), np.float32))
    assert state.sequences() == [[1, 9, 0], [2, 9, 0]]


@pytest.mark.parametrize("do_sample", [False, True], ids=["greedy", "sample"])
@pytest.mark.parametrize(
    ("value", "text"), [(np.nan, "NaN"), (-np.inf, "-inf for every token")], ids=["nan", "inf"]
)
def test_scores_that_cannot_be_decoded_name_the_row_and_leave_the_state_as_it_was(do_sample, value, text):
    state = _core.DecodeState(_core.DecodeOptions(max_new_tokens=4, do_sample=do_sample), VOCAB, PROMPTS)
    logits = np.ones((3, VOCAB), np.float32)
    logits[1] = value
    with pytest.raises(ValueError, match=f"^scores: row 1 .*{text}"):
        state.advance(logits)
    with pytest.raises(ValueError, match="nothing was proposed"):
        state.commit()
    assert state.sequences() == PROMPTS
    state.advance(np.ones((3, VOCAB), np.float32))  # the step can be repeated
    assert [len(s) for s in state.sequences()] == [4, 2, 6]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"temperature": 0.0, "do_sample": True},
            r"temperature is 0; .* \(for greedy decoding unset do_sample\)",
        ),
        ({"top_p": 0.0}, r"top_p is 0; it must be in \(0, 1\]"),
        ({"top_k": -1}, "top_k is -1; it must be at least 0"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0; .* above 0"),
        ({"num_return_sequences": 2}, "num_return_sequences is 2, but greedy"),
        ({"eos_token_id": VOCAB}, "eos_token_id holds 23, but the vocabulary has ids 0 to 22"),
        ({"bad_words_ids": [[]]}, "bad_words_ids holds an empty word"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; it must be at least 1"),
        ({"max_new_tokens": None}, "neither max_new_tokens nor max_length"),
        ({"max_new_tokens": None, "max_length": 3}, "prompt has 3 tokens, but max_length is 3"),
        ({"seeds": [1, 2]}, "2 seeds for 1 outputs: give one for all or one for each"),
        ({"num_beams": 65}, "num_beams is 65; it must be 1 to 64"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_options_out_of_range_are_refused(options, text):
    with pytest.raises(ValueError, match=text):
        _core.DecodeState(_core.DecodeOptions(**{"max_new_tokens": 4, **options}), VOCAB, [[1, 2, 3]])


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="no option 'top_q'"):
        _core.DecodeOptions(top_q=1)


@pytest.mark.parametrize("prompts", [[], [[]], [[VOCAB]], [[-1]]], ids=["none", "empty", "large", "negative"])
def test_prompts_that_cannot_be_decoded_are_refused(prompts):
    with pytest.raises(ValueError, match="prompt"):
        _core.DecodeState(_core.DecodeOptions(max_new_tokens=4), VOCAB, prompts)


@pytest.mark.parametrize(
    "logits",
    [np.zeros((2, VOCAB), np.float32), np.zeros((3, VOCAB - 1), np.float32), np.zeros(3 * VOCAB, np.float32)],
    ids=["rows", "vocabulary", "flat"],
)
def test_logits_of_another_shape_are_refused(logits):
    with pytest.raises(ValueError, match="logits have shape"):
        _core.DecodeState(_core.DecodeOptions(max_new_tokens=4), VOCAB, PROMPTS).advance(logits)


def test_logits_of_another_type_are_refused():
    with pytest.raises(TypeError):
        _core.DecodeState(_core.DecodeOptions(max_new_tokens=4), VOCAB, PROMPTS).advance(np.zeros((3, VOCAB)))


@pytest.mark.parametrize("vocab_size", [1, 31, 32, 33, 64, 97, 300])
def test_token_masks_remove_all_others(vocab_size):
    rng = np.random.default_rng(vocab_size)
    state = _core.DecodeState(_core.DecodeOptions(max_new_tokens=20), vocab_size, [[0], [0]])
    masks = state.token_masks
    assert masks.shape == (2, vocab_size // 32 + 1)
    assert not masks.any()
    for density in (0.05, 0.5, 0.95, 1.0):
        allowed = rng.random((2, vocab_size)) < density
        allowed[:, rng.integers(vocab_size)] = True
        words = np.zeros((2, masks.shape[1] * 32), bool)
        words[:, :vocab_size] = allowed
        words[:, vocab_size:] = rng.random() < 0.5  # bits behind the last id mean nothing
        masks[:] = np.packbits(words, axis=1, bitorder="little").view(np.uint32)
        given = rng.standard_normal((2, vocab_size)).astype(np.float32)
        scores = given.copy()
        state.process(scores)
        state.propose(scores)
        np.testing.assert_array_equal(scores, np.where(allowed, given, -np.inf))
        assert state.candidates() == [(row, int(scores[row].argmax())) for row in range(2)]
        state.commit()


@pytest.mark.parametrize(
    "options", [{}, {"do_sample": True}, {"num_beams": 2}, {"num_beams": 2, "do_sample": True}]
)
def test_a_row_without_tokens_is_told_from_nan(options):
    state = _core.DecodeState(_core.DecodeOptions(max_new_tokens=20, **options), 40, [[0]])
    assert state.token_masks.shape[1] == 2  # zeros: nothing is allowed
    with pytest.raises(ValueError, match="no token is left"):
        state.propose(np.zeros((1, 40), np.float32))
    assert state.no_token_left
    state.token_masks[:] = 0xFFFFFFFF
    with pytest.raises(ValueError, match="NaN"):
        state.propose(np.full((1, 40), np.nan, np.float32))
    assert not state.no_token_left
    state.propose(np.zeros((1, 40), np.float32))
    assert state.candidates()
