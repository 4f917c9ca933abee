"""Log-probabilities of texts against uncached torch."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sabiyarn_edge.engine.scheduler as scheduler_module
from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import InvalidInputError, NumericalError
from sabiyarn_edge.modeling import GPTJXForCausalLM
from tests.export.models import SHAPES, Exported, export_tiny
from tests.sliding_oracle import feed, windowed_mask
from tests.test_generator import poison_position

BLOCK = 24
BOUND = 5e-5  # float32 sums in another order, as in test_session


@pytest.fixture(scope="module", params=["as-released", "biases"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    shape = {**SHAPES[request.param], "block_size": BLOCK}
    return export_tiny(tmp_path_factory.mktemp("model"), shape, kv_cache_dtype="float32", verify=False)


@pytest.fixture(scope="module")
def torch_model(exported: Exported) -> GPTJXForCausalLM:
    return GPTJXForCausalLM.from_pretrained(exported.folder.parent / "checkpoint")


@pytest.fixture(scope="module")
def texts(exported: Exported) -> list[list[int]]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, exported.shape["vocab_size"], n).tolist() for n in (7, 1, BLOCK, 2, 13)]


def generator_of(exported: Exported, **options: Any) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(exported.folder, num_threads=1, **options)


def expected_log_probs(
    model: GPTJXForCausalLM, ids: list[int], keep: int = 0, window: int | None = None
) -> np.ndarray:
    """Each token's own forward pass over what it sees."""
    found = []
    for count in range(1, len(ids)):
        seen, _ = feed(ids[:count], model.config.block_size, keep, window)
        mask = None if window is None else torch.from_numpy(windowed_mask(len(seen), window, 0))
        with torch.no_grad():
            logits = model(torch.tensor([seen]), attn_mask=mask).logits[0, -1]
        found.append(torch.log_softmax(logits.double(), dim=-1)[ids[count]].item())
    return np.array(found)


@pytest.mark.parametrize("positions_at_once", [1, 5, 1000])
def test_log_probabilities_are_torchs(
    exported: Exported,
    torch_model: GPTJXForCausalLM,
    texts: list[list[int]],
    positions_at_once: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    row_bytes = 4 * exported.shape["vocab_size"]
    monkeypatch.setattr(scheduler_module, "LOGITS_BYTES", positions_at_once * row_bytes)
    generator = generator_of(exported)
    for ids, score in zip(texts, generator.score(texts), strict=True):
        assert score.token_ids == ids
        assert score.log_probs.shape == (len(ids) - 1,)
        expected = expected_log_probs(torch_model, ids)
        np.testing.assert_allclose(score.log_probs, expected, rtol=0, atol=BOUND)
        assert score.total == pytest.approx(expected.sum(), abs=BLOCK * BOUND)
        if len(ids) > 1:
            assert score.perplexity == pytest.approx(math.exp(-expected.mean()), rel=2 * BOUND)
    # The logits of so many positions are held, and not of all texts.
    most = min(positions_at_once, sum(len(ids) - 1 for ids in texts))
    assert generator.memory_usage()["step_buffers"] < most * row_bytes + 4096 + 64 * len(texts)


@pytest.mark.parametrize(("window", "keep"), [(None, 0), (None, 6), (10, 2)])
def test_long_texts_slide_as_generation_does(
    exported: Exported, torch_model: GPTJXForCausalLM, window: int | None, keep: int
) -> None:
    rng = np.random.default_rng(6)
    ids = rng.integers(0, exported.shape["vocab_size"], 5 * BLOCK).tolist()
    generator = generator_of(exported, overflow="slide", keep_tokens=keep, kv_window=window)
    [score] = generator.score([ids])
    expected = expected_log_probs(torch_model, ids, keep, window)
    np.testing.assert_allclose(score.log_probs, expected, rtol=0, atol=BOUND)


def test_scores_are_those_of_generation(exported: Exported) -> None:
    generator = generator_of(exported)
    result = generator.generate([3, 4, 5], max_new_tokens=12, output_scores=True)
    [score] = generator.score(result.sequences)
    assert result.scores is not None
    np.testing.assert_allclose(score.log_probs[2:], result.scores[0], rtol=0, atol=BOUND)


def test_a_text_of_one_token_has_no_perplexity(exported: Exported) -> None:
    [score] = generator_of(exported).score([[3]])
    assert score.total == 0
    assert math.isnan(score.perplexity)


def test_texts_are_read_one_by_one_and_leave_the_generator_free(text_model: Path) -> None:
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1)
    expected = generator.generate("Gbogbo", max_new_tokens=5).sequences.tolist()
    assert generator.tokenizer is not None
    scores = generator.score(itertools.repeat("Gbogbo ènìyàn"))
    for score in itertools.islice(scores, 3):
        assert score.token_ids == generator.tokenizer.encode("Gbogbo ènìyàn")
        assert generator.generate("Gbogbo", max_new_tokens=5).sequences.tolist() == expected


def test_bad_texts_are_refused(exported: Exported) -> None:
    generator = generator_of(exported)
    with pytest.raises(InvalidInputError, match=r"25 tokens, but there are 24 positions.*slide"):
        list(generator.score([[1] * 25]))
    with pytest.raises(InvalidInputError, match="empty"):
        list(generator.score([[1], []]))
    with pytest.raises(InvalidInputError, match="given one, 'text'"):
        generator.score("text")
    with pytest.raises(InvalidInputError, match="is a int; it must be"):  # one text's ids, not a text each
        list(generator.score([1, 2, 3]))
    with pytest.raises(InvalidInputError, match="one by one"):
        list(generator.score([[[1, 2], [3]]]))
    with pytest.raises(InvalidInputError, match="score has no option top_k"):
        generator.score([[1]], top_k=3)


def test_nan_is_named(tmp_path: Path) -> None:
    exported = export_tiny(tmp_path, {"block_size": 32}, verify=False)
    poison_position(exported.folder, position=6)
    with pytest.raises(NumericalError, match="NaN for one of the tokens 0 to 9 of the text"):
        list(generator_of(exported).score([[1] * 10]))


@pytest.mark.parametrize("overflow", ["error", "slide"])
def test_a_text_that_continues_another_has_the_same_log_probabilities(text_model, overflow):
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1, max_length=48)
    rng = np.random.default_rng(3)
    for length, num_given in ((48, 1), (48, 20), (48, 47), (130, 70), (130, 1), (200, 150)):
        if overflow == "error" and length > 48:
            continue
        ids = rng.integers(0, 300, length).tolist()
        [whole] = generator.score([ids], overflow=overflow)
        [score] = generator.score([ids[num_given:]], [ids[:num_given]], overflow=overflow)
        assert score.token_ids == ids[num_given:]
        np.testing.assert_array_equal(score.log_probs, whole.log_probs[num_given - 1 :])


def test_one_source_for_each_text(text_model):
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1)
    with pytest.raises(InvalidInputError, match="not one of given for each text"):
        list(generator.score([[5], [6]], [[7]]))
    with pytest.raises(InvalidInputError, match="given takes several texts"):
        generator.score([[5]], "a")
