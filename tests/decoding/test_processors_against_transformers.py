"""Each function of the score pipeline, elementwise against transformers' own processor."""

from __future__ import annotations

import numpy as np
import pytest

from sabiyarn_edge import _core, _core_testing
from tests.core.selection import twins_scores as twins

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
hf = pytest.importorskip("transformers.generation")

VOCAB = 211
BORDER = 1e-5  # relative; a threshold moved by this much must account for every token kept by one side only


def make_rows(count=40):
    """Scores [VOCAB] and ids: peaked, flat, with ties and zeros; a row of log-probabilities now and then."""
    rng = np.random.default_rng(17)
    for i in range(count):
        scores = rng.normal(0, rng.choice([0.2, 2.0, 6.0]), VOCAB).astype(np.float32)
        if i % 4 == 1:
            scores = np.round(scores)
        if i % 4 == 2:
            scores[rng.random(VOCAB) < 0.5] = -np.inf
        if i % 4 == 3:
            scores = torch.log_softmax(torch.from_numpy(scores), -1).numpy()
        yield scores, rng.integers(0, 12, rng.integers(1, 30)).tolist()


def theirs(processor, scores, ids):
    return processor(torch.tensor([ids]), torch.from_numpy(scores.copy())[None])[0].numpy()


def ours(function, scores, *args):
    result = scores.copy()
    function(result, *args)
    return result


WORDS = [[3], [1, 2], [4, 5, 6], [0, 0]]

EXACT = {
    "repetition_penalty": (
        lambda: hf.RepetitionPenaltyLogitsProcessor(1.3),
        lambda s, ids: ours(_core_testing.apply_repetition_penalty, s, ids, 1.3),
    ),
    "no_repeat_ngram_size 1": (
        lambda: hf.NoRepeatNGramLogitsProcessor(1),
        lambda s, ids: ours(_core_testing.ban_repeated_ngrams, s, ids, 1),
    ),
    "no_repeat_ngram_size 2": (
        lambda: hf.NoRepeatNGramLogitsProcessor(2),
        lambda s, ids: ours(_core_testing.ban_repeated_ngrams, s, ids, 2),
    ),
    "no_repeat_ngram_size 3": (
        lambda: hf.NoRepeatNGramLogitsProcessor(3),
        lambda s, ids: ours(_core_testing.ban_repeated_ngrams, s, ids, 3),
    ),
    "bad_words_ids": (
        lambda: hf.NoBadWordsLogitsProcessor(WORDS),
        lambda s, ids: ours(_core_testing.ban_bad_words, s, ids, WORDS),
    ),
    "sequence_bias": (
        lambda: hf.SequenceBiasLogitsProcessor({tuple(word): 0.7 * len(word) for word in WORDS}),
        lambda s, ids: ours(
            _core_testing.apply_sequence_bias, s, ids, [(word, 0.7 * len(word)) for word in WORDS]
        ),
    ),
    "prefix_allowed_tokens_fn": (
        lambda: hf.PrefixConstrainedLogitsProcessor(lambda batch, ids: [5, 9, 5], 1),
        lambda s, ids: ours(_core_testing.keep_only, s, [5, 9, 5]),
    ),
    "temperature and top_k": (
        lambda: hf.LogitsProcessorList([hf.TemperatureLogitsWarper(0.7), hf.TopKLogitsWarper(20)]),
        lambda s, ids: ours(_core_testing.filter_top_k, s, 20, 0.7),
    ),
    "top_k beyond the vocabulary": (
        lambda: hf.TopKLogitsWarper(10 * VOCAB),
        lambda s, ids: ours(_core_testing.filter_top_k, s, 10 * VOCAB),
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_processor_bit_for_bit(name):
    make, function = EXACT[name]
    for scores, ids in make_rows():
        np.testing.assert_array_equal(function(scores, ids), theirs(make(), scores, ids))


def test_biases_of_one_id_are_added_in_the_reference_order():
    biases = {(1, 2): 1e8, (0, 1, 2): -1e8, (2,): 1.0}  # in float32 0 with single ids first, else 1
    scores = np.zeros(VOCAB, np.float32)
    expected = theirs(hf.SequenceBiasLogitsProcessor(biases), scores, [5, 0, 1])
    result = ours(_core_testing.apply_sequence_bias, scores, [5, 0, 1], list(biases.items()))
    np.testing.assert_array_equal(result, expected)


FILTERS = {
    "top_p": (_core_testing.filter_top_p, hf.TopPLogitsWarper, [0.05, 0.5, 0.9, 0.99]),
    "min_p": (_core_testing.filter_min_p, hf.MinPLogitsWarper, [0.01, 0.2, 0.9]),
    "typical_p": (_core_testing.filter_typical_p, hf.TypicalLogitsWarper, [0.1, 0.5, 0.95]),
    "epsilon_cutoff": (_core_testing.filter_epsilon, hf.EpsilonLogitsWarper, [1e-4, 3e-3, 0.1]),
    "eta_cutoff": (_core_testing.filter_eta, hf.EtaLogitsWarper, [1e-4, 3e-3, 0.1]),
}


def same_distance(scores, mine, reference):
    """typical_p: do the sets differ only in tokens as far from the entropy as the last one kept, but for rounding?"""
    with np.errstate(divide="ignore"):
        distance = np.abs(-np.log(twins.probabilities(scores)) - twins.entropy(scores))
    return np.all(np.abs(distance[mine != reference] - distance[reference].max()) < BORDER)


@pytest.mark.parametrize("keep", [1, 3])
@pytest.mark.parametrize("name", FILTERS)
def test_filter_keeps_the_same_tokens(name, keep):
    function, warper, values = FILTERS[name]

    def keeps(scores, value):
        result = theirs(warper(value, min_tokens_to_keep=keep), scores, [0])
        np.testing.assert_array_equal(result[result > -np.inf], scores[result > -np.inf])
        return result > -np.inf

    for scores, _ in make_rows():
        for value in values:
            mine, reference = ours(function, scores, value, keep) > -np.inf, keeps(scores, value)
            if np.array_equal(mine, reference):
                continue
            # Either rounding at the border, or equal scores there, where torch's sort promises no order: then as many
            # tokens of each score must stay.
            low, high = keeps(scores, value * (1 - BORDER)), keeps(scores, value * (1 + BORDER))
            between = np.all((low & high) <= mine) and np.all(mine <= (low | high))
            counts = [np.unique(scores[kept], return_counts=True) for kept in (mine, reference)]
            same_counts = len(counts[0][0]) == len(counts[1][0]) and all(
                np.array_equal(a, b) for a, b in zip(*counts, strict=True)
            )
            assert (
                between or same_counts or (name == "typical_p" and same_distance(scores, mine, reference))
            ), value


def test_renormalize():
    for scores, ids in make_rows():
        expected = theirs(hf.LogitNormalization(), scores, ids)
        np.testing.assert_allclose(ours(_core_testing.renormalize, scores), expected, rtol=2e-6, atol=2e-6)


def test_the_whole_pipeline_in_order():
    """Forced, suppressed and minimum-length rules meet the others in process(), as in _get_logits_processor."""
    ends = [7, 8]
    options = {
        "sequence_bias": [([3], 1.5)],
        "repetition_penalty": 1.4,
        "no_repeat_ngram_size": 2,
        "bad_words_ids": [[9], [7]],
        "min_length": 20,
        "eos_token_id": ends,
        "suppress_tokens": [10, 11],
        "begin_suppress_tokens": [12],
    }
    for scores, ids in make_rows():
        processors = hf.LogitsProcessorList(
            [
                hf.SequenceBiasLogitsProcessor({(3,): 1.5}),
                hf.RepetitionPenaltyLogitsProcessor(1.4),
                hf.NoRepeatNGramLogitsProcessor(2),
                hf.NoBadWordsLogitsProcessor([[9], [7]], eos_token_id=ends),
                hf.MinLengthLogitsProcessor(20, ends),
                hf.logits_process.SuppressTokensLogitsProcessor([10, 11]),
                hf.logits_process.SuppressTokensAtBeginLogitsProcessor([12], len(ids)),
            ]
        )
        state = _core.DecodeState(_core.DecodeOptions(max_new_tokens=50, **options), VOCAB, [ids])
        logits = scores.copy()[None]
        state.process(logits)
        np.testing.assert_array_equal(logits[0], theirs(processors, scores, ids))


@pytest.mark.parametrize("seed", range(40))
def test_what_sampling_draws_from(seed):
    """All warpers in order, random values, as _get_logits_processor of generate() puts them together."""
    rng = np.random.default_rng(seed)
    options = {"do_sample": True, "eos_token_id": [3, 4], "max_new_tokens": 5}
    options["num_beams"] = int(rng.choice([1, 3]))
    options["temperature"] = float(rng.choice([0.7, 1.0, 1.4]))
    options["top_k"] = int(rng.choice([0, 2, 20, 50]))
    options |= {"top_p": 0.93} if rng.random() < 0.6 else {}
    options |= {"min_p": 0.02} if rng.random() < 0.4 else {}
    options |= {"typical_p": 0.9} if rng.random() < 0.4 else {}
    options |= {"epsilon_cutoff": 3e-3} if rng.random() < 0.4 else {}
    options |= {"eta_cutoff": 3e-3} if rng.random() < 0.4 else {}
    options |= {"renormalize_logits": True} if rng.random() < 0.4 else {}
    config = transformers.GenerationConfig(**options)
    config._eos_token_tensor = torch.tensor([3, 4])
    processors = transformers.GenerationMixin()._get_logits_processor(config, input_ids_seq_length=1)
    scores = rng.normal(0, 3, VOCAB).astype(np.float32)
    expected = theirs(processors, scores, [0])
    mine = ours(_core_testing.filter_scores, scores, _core.DecodeOptions(**options))
    np.testing.assert_array_equal(mine > -np.inf, expected > -np.inf, str(options))
    np.testing.assert_allclose(mine, expected, rtol=2e-6, atol=2e-6, err_msg=str(options))
