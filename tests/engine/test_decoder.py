"""The parity chain: NumPy oracle == torch uncached == torch cached == the graph driven by the core.

Every link is tested over the same shapes; tests/modeling holds torch to the oracle, this file the core's path to
both. Bounds are absolute, on logits whose standard deviation is about 2.5:
    float32 KV  5e-5: float32 sums in another order; 5e-6 is typical
    float16 KV  2e-2: keys and values rounded to 11 bits (relative error 5e-4) in each layer; 3e-3 is typical
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from sabiyarn_edge.engine.decoder import Decoder
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.modeling import GPTJXForCausalLM
from tests.engine.driving import Driver
from tests.export.models import SHAPES, Exported, export_tiny
from tests.sliding_oracle import windowed_mask

BOUNDS = {"float32": 5e-5, "float16": 2e-2}


@pytest.fixture(scope="module", params=SHAPES)
def shape(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["float32", "float16"])
def kv_dtype(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def exported(shape: str, kv_dtype: str, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    options = {**SHAPES[shape], "block_size": 700}
    return export_tiny(tmp_path_factory.mktemp("exported"), options, kv_cache_dtype=kv_dtype, verify=False)


@pytest.fixture(scope="module")
def torch_model(exported: Exported) -> Iterator[GPTJXForCausalLM]:
    yield GPTJXForCausalLM.from_pretrained(exported.folder.parent / "checkpoint")


def random_prompts(exported: Exported, *lengths: int, seed: int = 3) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, exported.shape["vocab_size"], length).tolist() for length in lengths]


def torch_logits(model: GPTJXForCausalLM, ids: list[int], mask: np.ndarray | None = None) -> np.ndarray:
    """Uncached logits [length, vocab] of one row."""
    attn_mask = None if mask is None else torch.from_numpy(mask)
    with torch.no_grad():
        return model(torch.tensor([ids]), attn_mask=attn_mask).logits[0].numpy()


@pytest.mark.parametrize("chunk", [1, 7, 64, 256])
def test_greedy_equals_torch_for_any_chunk_batch_and_growth(
    exported: Exported,
    torch_model: GPTJXForCausalLM,
    kv_dtype: str,
    chunk: int,
) -> None:
    decoder = Decoder(exported.folder, num_threads=1, max_prefill_chunk=chunk)
    prompts = random_prompts(exported, 3, 250, 1, 40)
    sequences, seen = Driver(decoder).generate(prompts, 24)
    assert decoder.kv_cache.capacity == 512  # 250 + 24 positions do not fit into 256
    for prompt, ids, rows in zip(prompts, sequences, seen, strict=True):
        assert ids[: len(prompt)] == prompt
        expected = torch_logits(torch_model, ids[:-1])[len(prompt) - 1 :]
        np.testing.assert_allclose(np.array(rows), expected, rtol=0, atol=BOUNDS[kv_dtype])
        chosen = np.array(ids[len(prompt) :])
        if kv_dtype == "float32":
            np.testing.assert_array_equal(chosen, expected.argmax(axis=1))
        else:  # where torch's two best are nearer than the bound, rounding may decide
            loss = expected.max(axis=1) - expected[np.arange(len(chosen)), chosen]
            assert (loss <= 2 * BOUNDS["float16"]).all()


def test_torch_cached_generation_is_the_same_path(exported: Exported, torch_model: GPTJXForCausalLM) -> None:
    prompt = random_prompts(exported, 30)[0]
    full = torch_logits(torch_model, prompt)
    torch_model.clear_kv_cache()
    with torch.no_grad():
        parts = [
            torch_model(torch.tensor([part]), use_cache=True).logits[0] for part in (prompt[:13], prompt[13:])
        ]
    torch_model.clear_kv_cache()
    np.testing.assert_allclose(torch.cat(parts).numpy(), full, rtol=0, atol=BOUNDS["float32"])


@pytest.mark.parametrize(
    ("window", "sinks"), [(32, 0), (48, 5), (300, 0)], ids=["many-wraps", "sinks", "grown"]
)
def test_a_full_window_equals_sliding_attention(
    exported: Exported, torch_model: GPTJXForCausalLM, kv_dtype: str, window: int, sinks: int
) -> None:
    decoder = Decoder(exported.folder, num_threads=1, window=window, num_sink_tokens=sinks)
    prompts = random_prompts(exported, min(2 * window, 500), window, window // 2, 1)
    sequences, seen = Driver(decoder).generate(prompts, 2 * min(window, 60))
    for prompt, ids, rows in zip(prompts, sequences, seen, strict=True):
        mask = windowed_mask(len(ids) - 1, window, sinks)
        expected = torch_logits(torch_model, ids[:-1], mask)[len(prompt) - 1 :]
        np.testing.assert_allclose(np.array(rows), expected, rtol=0, atol=BOUNDS[kv_dtype])


def test_rows_that_end_leave_the_others_alone(exported: Exported) -> None:
    driver = Driver(Decoder(exported.folder, num_threads=1))
    prompts = random_prompts(exported, 20, 9, 33, 2)
    alone = [driver.generate([prompt], 16)[0][0] for prompt in prompts]
    ends = sorted({ids[len(p) + 4] for ids, p in zip(alone, prompts, strict=True)})[:2]

    def cut(ids: list[int], start: int) -> list[int]:
        """ids up to the first end token behind `start`."""
        stop = next((i for i in range(start, len(ids)) if ids[i] in ends), len(ids) - 1)
        return ids[: stop + 1]

    together, _ = driver.generate(prompts, 16, decode={"eos_token_id": ends})
    assert together == [cut(ids, len(p)) for ids, p in zip(alone, prompts, strict=True)]
    assert len({len(ids) - len(p) for ids, p in zip(together, prompts, strict=True)}) > 1


def test_no_kv_memory_before_the_first_token_and_none_after_free(exported: Exported) -> None:
    decoder = Decoder(exported.folder, num_threads=1)
    assert decoder.kv_cache.nbytes == decoder.buffers.nbytes == 0
    prompts = random_prompts(exported, 10)
    driver = Driver(decoder)
    first, _ = driver.generate(prompts, 5)
    assert decoder.kv_cache.nbytes == 256 * decoder.kv_cache.bytes_per_position
    for empty, left in ((decoder.clear_kv_cache, 256), (decoder.free_kv_cache, 0)):
        driver.rows.forget()
        empty()
        driver.rows.reset()
        assert decoder.kv_cache.nbytes == left * decoder.kv_cache.bytes_per_position
        assert driver.generate(prompts, 5)[0] == first


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 701}, "kv_window is 701; it must be between 2 and the model's block_size 700"),
        ({"window": 1}, "kv_window is 1"),
        ({"window": 8, "num_sink_tokens": 7}, "num_sink_tokens is 7; .* between 0 and 6"),
        ({"num_threads": 0}, "num_threads is 0, but must be an integer of at least 1"),
        ({"num_threads": "2"}, "num_threads is '2', but must be an integer"),
    ],
)
def test_impossible_settings_are_refused(exported: Exported, options: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        Decoder(Path(exported.folder), **options)
