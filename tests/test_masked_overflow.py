"""Masks where positions end: what is left of a text sees what is left of what it saw, against uncached torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sabiyarn_edge import EdgeGenerator, document_mask, prefix_mask
from sabiyarn_edge._core import DecodeOptions, DecodeState
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.modeling import GPTJXForCausalLM
from tests.export.models import export_tiny
from tests.sliding_oracle import feed

BLOCK = 24


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("short-model")
    return export_tiny(root, {"block_size": BLOCK}, kv_cache_dtype="float32", verify=False).folder


@pytest.fixture(scope="module")
def torch_model(folder: Path) -> GPTJXForCausalLM:
    return GPTJXForCausalLM.from_pretrained(folder.parent / "checkpoint")


def prompt(length: int, seed: int = 5) -> list[int]:
    return np.random.default_rng(seed).integers(0, 97, length).tolist()


def mask_of_text(mask: np.ndarray, total: int) -> np.ndarray:
    """The mask of a whole text of `total` tokens, additive: its prompt's, and rows for the tokens behind."""
    length = len(mask)
    additive = np.where(mask, 0.0, -np.inf) if mask.dtype == bool else mask
    whole = np.full((total, total), -np.inf)
    whole[:length, :length] = additive
    for query in range(length, total):
        whole[query, :length] = additive[length - 1]
        whole[query, length : query + 1] = 0
    return whole


def visible(mask: np.ndarray, total: int, kept: list[int]) -> np.ndarray:
    """What the tokens at `kept` see of one another."""
    seen = mask_of_text(mask, total)[kept][:, kept]
    for i, row in enumerate(seen):
        if (row == -np.inf).all():
            row[i] = 0  # all that it saw is gone
    return seen


def decode_with_torch(
    model: GPTJXForCausalLM, prompts: list[list[int]], masks: list[np.ndarray], keep: int, **options: Any
) -> list[list[int]]:
    state = DecodeState(DecodeOptions(**options), model.config.vocab_size, prompts)
    while not state.finished:
        logits = []
        for row in range(state.num_rows):
            text = state.history_of(row)
            mask = next(mask for ids, mask in zip(prompts, masks, strict=True) if text[: len(ids)] == ids)
            kept, _ = feed(range(len(text)), BLOCK, keep)
            seen = visible(mask, len(text), kept)
            with torch.no_grad():
                ids = torch.tensor([[text[at] for at in kept]])
                out = model(ids, attn_mask=torch.from_numpy(seen.astype(np.float32))).logits
            logits.append(out[0, -1].numpy())
        state.advance(np.array(logits))
    return [list(ids) for ids in state.sequences()]


def random_mask(length: int, seed: int = 1) -> np.ndarray:
    mask = np.random.default_rng(seed).random((length, length)) < 0.4
    mask[:, 1] = True
    return mask


MASKS = {
    "documents": lambda ids: document_mask(ids, ids[len(ids) // 2]),
    "bidirectional": lambda ids: prefix_mask(len(ids)),
    "any": lambda ids: random_mask(len(ids)),
    "additive": lambda ids: np.where(random_mask(len(ids)), np.linspace(-1, 1, len(ids)), -np.inf),
    "first-only": lambda ids: (
        np.arange(len(ids))[None] == np.zeros((len(ids), 1), int)
    ),  # what is seen is dropped
}


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("keep", [0, 5])
@pytest.mark.parametrize("options", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_masked_texts_slide(
    folder: Path, torch_model: GPTJXForCausalLM, name: str, keep: int, options: dict[str, Any]
) -> None:
    generator = EdgeGenerator.from_pretrained(folder, num_threads=1, overflow="slide", keep_tokens=keep)
    prompts = [prompt(5), prompt(BLOCK - 1, 6), prompt(2 * BLOCK, 7)]
    masks = [MASKS[name](ids) for ids in prompts]
    expected = decode_with_torch(torch_model, prompts, masks, keep, max_new_tokens=40, **options)
    result = generator.generate(prompts, attn_mask=masks, max_new_tokens=40, **options)
    found = [ids[:n].tolist() for ids, n in zip(result.sequences, result.lengths, strict=True)]
    assert found == expected
    assert result.timings.reruns > 0


def test_sliding_in_chunks_changes_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = EdgeGenerator.from_pretrained(folder, num_threads=1, overflow="slide", keep_tokens=3)
    ids = prompt(BLOCK)
    mask = document_mask(ids, ids[4])
    expected = generator.generate(ids, attn_mask=mask, max_new_tokens=60).sequences
    monkeypatch.setattr(generator._engine.decoder, "max_prefill_chunk", 3)
    np.testing.assert_array_equal(
        generator.generate(ids, attn_mask=mask, max_new_tokens=60).sequences, expected
    )


@pytest.mark.parametrize("name", MASKS)
def test_a_cut_prompt_keeps_its_part_of_the_mask(folder: Path, name: str) -> None:
    generator = EdgeGenerator.from_pretrained(
        folder, num_threads=1, overflow="truncate_prompt", keep_tokens=4
    )
    ids = prompt(50)
    mask = MASKS[name](ids)
    kept = [*range(4), *range(50 - (BLOCK - 8 - 4), 50)]
    part = visible(mask, 50, kept)
    expected = generator.generate([ids[at] for at in kept], attn_mask=part, max_new_tokens=8)
    result = generator.generate(ids, attn_mask=mask, max_new_tokens=8)
    np.testing.assert_array_equal(result.sequences, expected.sequences)
    assert result.truncated_tokens == [50 - len(kept)]


def test_prompt_lookup_changes_nothing_under_a_mask(folder: Path) -> None:
    generator = EdgeGenerator.from_pretrained(folder, num_threads=1)
    ids = [1, 2, 3, 1, 2, 3, 1]
    expected = generator.generate(ids, attn_mask=prefix_mask(7), max_new_tokens=12)
    found = generator.generate(ids, attn_mask=prefix_mask(7), max_new_tokens=12, prompt_lookup_num_tokens=3)
    np.testing.assert_array_equal(found.sequences, expected.sequences)


def test_what_is_left_must_fit_into_the_window(folder: Path) -> None:
    generator = EdgeGenerator.from_pretrained(folder, num_threads=1, overflow="slide", kv_window=10)
    with pytest.raises(InvalidInputError, match="speaks of all 11 tokens of the prompt, but kv_window is 10"):
        generator.generate([1] * 11, attn_mask=prefix_mask(11))
