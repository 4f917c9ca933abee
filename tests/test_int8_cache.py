"""The int8 KV cache from prompt to text: all that keys and values pass through, against a torch model that rounds.

The oracle is the full, uncached forward of torch in which every key and value is replaced by its nearest multiple of
the channel's scale. Logits have a standard deviation of about 2.5. Bound 1e-2: 1e-5 is typical (float32 sums in another
order), and a key or value that is nearly a tie may round the other way there, which moves its own logits by 2e-3.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from sabiyarn_edge import EdgeGenerator, prefix_mask
from sabiyarn_edge.modeling import GPTJXForCausalLM
from tests.export.models import Exported, export_tiny
from tests.sliding_oracle import windowed_mask

BOUND = 1e-2
SHAPE = {"n_heads": 2, "n_embd": 48, "vocab_size": 131, "block_size": 400, "n_layer": 2}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_tiny(tmp_path_factory.mktemp("int8"), SHAPE, kv_cache_dtype="int8", verify=False)


@pytest.fixture(scope="module")
def generator(exported: Exported) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(exported.folder, num_threads=1)


@pytest.fixture(scope="module")
def torch_model(exported: Exported) -> Iterator[GPTJXForCausalLM]:
    model = GPTJXForCausalLM.from_pretrained(exported.folder.parent / "checkpoint", max_batch_size=8)
    width = SHAPE["n_embd"]
    for block, scales in zip(model.transformer.h, exported.kv_scales(), strict=True):
        scale = torch.from_numpy(np.concatenate([side.flatten() for side in scales]))

        def round_keys_and_values(_module, _inputs, qkv, scale=scale):
            rounded = torch.clamp(torch.round(qkv[..., width:] * (1 / scale)), -128, 127) * scale
            return torch.cat([qkv[..., :width], rounded], dim=-1)

        block.attn.c_attn.register_forward_hook(round_keys_and_values)
    yield model


def prompts(*lengths: int) -> list[list[int]]:
    rng = np.random.default_rng(5)
    return [rng.integers(1, SHAPE["vocab_size"], length).tolist() for length in lengths]


def assert_greedy(
    model: GPTJXForCausalLM, ids: list[int], start: int, mask: np.ndarray | None = None
) -> None:
    """Each token from `start` on is torch's best, or as good but for BOUND."""
    attn_mask = None if mask is None else torch.from_numpy(mask)
    with torch.no_grad():
        logits = model(torch.tensor([ids[:-1]]), attn_mask=attn_mask).logits[0, start - 1 :].numpy()
    loss = logits.max(axis=1) - logits[np.arange(len(logits)), ids[start:]]
    assert (loss <= 2 * BOUND).all()


def test_scores_equal_those_of_rounded_keys_and_values(
    generator: EdgeGenerator, torch_model: GPTJXForCausalLM
) -> None:
    (ids,) = prompts(300)
    (score,) = generator.score([ids])
    with torch.no_grad():
        expected = torch_model(torch.tensor([ids])).logits[0].log_softmax(dim=-1).numpy()
    np.testing.assert_allclose(score.log_probs, expected[np.arange(299), ids[1:]], rtol=0, atol=BOUND)


def test_unequal_rows_that_grow(generator: EdgeGenerator, torch_model: GPTJXForCausalLM) -> None:
    rows = prompts(250, 3, 1, 40)
    result = generator.generate(rows, max_new_tokens=20)
    assert generator._engine.decoder.kv_cache.capacity == 448  # all 400 positions, in whole tiles of 64
    for prompt, ids, length in zip(rows, result.sequences.tolist(), result.lengths, strict=True):
        assert_greedy(torch_model, ids[:length], len(prompt))


@pytest.mark.parametrize(("window", "sinks"), [(32, 0), (48, 5)])
def test_wrapped_rings(exported: Exported, torch_model: GPTJXForCausalLM, window: int, sinks: int) -> None:
    small = EdgeGenerator.from_pretrained(
        exported.folder, num_threads=1, kv_window=window, num_sink_tokens=sinks
    )
    (prompt,) = prompts(window // 2)
    ids = small.generate(prompt, max_new_tokens=3 * window).sequences[0].tolist()
    assert_greedy(torch_model, ids, len(prompt), windowed_mask(len(ids) - 1, window, sinks))


def test_beams_copy_and_reorder(generator: EdgeGenerator, torch_model: GPTJXForCausalLM) -> None:
    (prompt,) = prompts(30)
    options = {"max_new_tokens": 16, "num_beams": 4, "length_penalty": 1.2}
    ours = generator.generate(prompt, **options)
    theirs = torch_model.generate(
        torch.tensor([prompt]), use_cache=False, return_dict_in_generate=True, **options
    )
    np.testing.assert_allclose(ours.sequences_scores, theirs.sequences_scores, rtol=0, atol=BOUND)
    assert ours.sequences.tolist() == theirs.sequences.tolist()


def test_prompt_lookup_is_greedy(generator: EdgeGenerator) -> None:
    prompt = prompts(12)[0] * 4
    plain = generator.generate(prompt, max_new_tokens=40)
    guessed = generator.generate(prompt, max_new_tokens=40, prompt_lookup_num_tokens=5, reuse_prefix=False)
    assert guessed.sequences.tolist() == plain.sequences.tolist()


def test_masks(generator: EdgeGenerator, torch_model: GPTJXForCausalLM) -> None:
    (prompt,) = prompts(40)
    ids = generator.generate(prompt, attn_mask=prefix_mask(25, 40), max_new_tokens=24).sequences[0].tolist()
    sees = np.tri(len(ids) - 1, dtype=bool)
    sees[:25, :25] = True
    assert_greedy(torch_model, ids, len(prompt), sees)


def test_a_causal_mask_gives_the_tokens_of_no_mask(generator: EdgeGenerator) -> None:
    (prompt,) = prompts(40)
    plain = generator.generate(prompt, max_new_tokens=24)
    masked = generator.generate(prompt, max_new_tokens=24, attn_mask=np.tri(40, dtype=bool))
    assert masked.sequences.tolist() == plain.sequences.tolist()


def test_takes_one_byte_for_each_value(exported: Exported) -> None:
    fresh = EdgeGenerator.from_pretrained(exported.folder, num_threads=1)
    assert fresh.memory_usage()["kv_cache"] == 0
    fresh.generate(prompts(20)[0], max_new_tokens=4)
    usage = fresh.memory_usage()
    assert usage["kv_bytes_per_position"] == exported.report.kv_bytes_per_token == 2 * 2 * 48
    assert usage["kv_cache"] == 256 * 2 * 2 * 48  # the smallest capacity
