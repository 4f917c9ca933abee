"""Hidden states against torch's, which come from one uncached forward pass without a graph, a cache or chunks."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sabiyarn_edge.engine.scheduler as scheduler_module
from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import InvalidInputError, NumericalError
from sabiyarn_edge.modeling import GPTJXForCausalLM
from sabiyarn_edge.modeling.blocks import Attend
from tests.export.models import SHAPES, Exported, export_tiny
from tests.sliding_oracle import windowed_mask
from tests.test_generator import poison_position

BLOCK = 48
# Hidden states have a standard deviation of about 1: layer norms make it so.
BOUNDS = {
    "float32": 2e-5,  # float32 sums in another order; 2e-6 is typical
    "float16": 1e-2,  # keys and values rounded to 11 bits in each layer; 1e-3 is typical
}


@pytest.fixture(scope="module", params=["float32", "float16"])
def kv_dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def exported(kv_dtype: str, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    shape = {**SHAPES["biases"], "block_size": BLOCK}
    return export_tiny(tmp_path_factory.mktemp("model"), shape, kv_cache_dtype=kv_dtype, verify=False)


@pytest.fixture(scope="module")
def torch_model(exported: Exported) -> GPTJXForCausalLM:
    return GPTJXForCausalLM.from_pretrained(exported.folder.parent / "checkpoint")


@pytest.fixture(scope="module")
def texts(exported: Exported) -> list[list[int]]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, exported.shape["vocab_size"], n).tolist() for n in (7, 1, BLOCK, 2, 13)]


def generator_of(exported: Exported, **options: Any) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(exported.folder, num_threads=1, **options)


def hidden_states(model: GPTJXForCausalLM, ids: list[int], mask: np.ndarray | None = None) -> np.ndarray:
    """[tokens, n_embd] behind the last layer norm."""
    attend = Attend() if mask is None else Attend(mask=torch.from_numpy(mask))
    with torch.no_grad():
        return model.transformer(torch.tensor([ids]), torch.arange(len(ids))[None], attend)[0].numpy()


def pooled(hidden: np.ndarray, pooling: str) -> np.ndarray:
    return hidden.mean(axis=0) if pooling == "mean" else hidden[-1]


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("chunk", [1, 5, 256])
def test_vectors_are_those_of_torch(
    exported: Exported,
    torch_model: GPTJXForCausalLM,
    texts: list[list[int]],
    kv_dtype: str,
    pooling: str,
    chunk: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = generator_of(exported)
    monkeypatch.setattr(generator._engine.decoder, "max_prefill_chunk", chunk)
    vectors = generator.embed(texts, pooling=pooling)
    assert (vectors.shape, vectors.dtype) == ((len(texts), exported.shape["n_embd"]), np.float32)
    for vector, ids in zip(vectors, texts, strict=True):
        expected = pooled(hidden_states(torch_model, ids), pooling)
        np.testing.assert_allclose(vector, expected, rtol=0, atol=BOUNDS[kv_dtype])


def test_few_logits_are_held_at_once(
    exported: Exported, texts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = generator_of(exported).embed(texts)
    monkeypatch.setattr(scheduler_module, "LOGITS_BYTES", 3 * 4 * exported.shape["vocab_size"])
    generator = generator_of(exported)
    np.testing.assert_array_equal(generator.embed(texts), expected)  # the order of the sums stays the same
    assert generator._engine.decoder.buffers.nbytes < 2**13  # 3 rows of logits, and a page of inputs


@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_a_window_hides_the_oldest_tokens(
    exported: Exported, torch_model: GPTJXForCausalLM, texts: list[list[int]], kv_dtype: str, pooling: str
) -> None:
    generator = generator_of(exported, kv_window=11, num_sink_tokens=2)
    for ids in (texts[2], texts[4]):
        hidden = hidden_states(torch_model, ids, windowed_mask(len(ids), 11, 2))
        found = generator.embed(ids, pooling=pooling)
        np.testing.assert_allclose(found, pooled(hidden, pooling), rtol=0, atol=BOUNDS[kv_dtype])


def test_one_text_gives_one_vector_and_a_list_a_row_each(exported: Exported, texts: list[list[int]]) -> None:
    generator = generator_of(exported)
    one, many = generator.embed(texts[0]), generator.embed([texts[0]])
    assert (one.shape, many.shape) == ((48,), (1, 48))
    np.testing.assert_array_equal(one, many[0])


def test_normalized_vectors_have_length_1(exported: Exported, texts: list[list[int]]) -> None:
    generator = generator_of(exported)
    plain, normalized = generator.embed(texts), generator.embed(texts, normalize=True)
    np.testing.assert_allclose(np.linalg.norm(normalized, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(normalized * np.linalg.norm(plain, axis=1, keepdims=True), plain, rtol=1e-5)


def test_generation_before_and_after_is_untouched(exported: Exported, texts: list[list[int]]) -> None:
    generator = generator_of(exported)
    expected = generator.generate(texts[0], max_new_tokens=10).sequences.tolist()
    vector = generator.embed(texts[4])
    again = generator.generate(texts[0], max_new_tokens=10)
    assert again.sequences.tolist() == expected
    assert again.timings.reused_tokens == 0
    np.testing.assert_array_equal(generator.embed(texts[4]), vector)


def test_embedding_many_texts_keeps_no_memory(exported: Exported, texts: list[list[int]]) -> None:
    generator = generator_of(exported)
    names = ("kv_cache", "step_buffers", "mask_buffer", "mask_cache")
    usages = []
    for repeats in (30, 90):  # more texts than run together, and three times as many
        generator.embed(texts * repeats)
        usages.append({name: generator.memory_usage()[name] for name in names})
    assert usages[0] == usages[1]


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        (
            [1] * (BLOCK + 1),
            {},
            f"text 0 has {BLOCK + 1} tokens, but there are {BLOCK} positions. Embed pieces",
        ),
        ([[1], []], {}, "prompt 1 is empty"),
        ([[1], [101]], {}, "prompt 1 has token id 101 at index 0"),
        ("text", {}, "no tokenizer.json"),
        ([1], {"pooling": "max"}, "pooling is 'max', but must be 'mean' or 'last'"),
        ([1], {"normalize": 1}, "normalize is 1"),
    ],
)
def test_bad_input(exported: Exported, inputs: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        generator_of(exported).embed(inputs, **options)


def test_nan_is_refused(exported: Exported, tmp_path: Path) -> None:
    folder = shutil.copytree(exported.folder, tmp_path / "poisoned")
    poison_position(folder, position=3)
    with pytest.raises(NumericalError, match="gave NaN"):
        EdgeGenerator.from_pretrained(folder, num_threads=1).embed([1, 2, 3, 4, 5])
