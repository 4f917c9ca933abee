"""Scales of the int8 KV cache: what text they come from, and that they are what a plain loop finds in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sabiyarn_edge.export import export_model
from sabiyarn_edge.export.kv_scales import (
    MAX_PIECES,
    PIECE_TOKENS,
    calibration_pieces,
    measure_scales,
)
from sabiyarn_edge.modeling import GPTJXForCausalLM
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint
from tests.export.models import FeedingLoop, export_tiny
from tests.tiny_tokenizer import tiny_tokenizer

TEXT = "Gbogbo ènìyàn ni a bí ní òmìnira; iyì àti ẹ̀tọ́ kọ̀ọ̀kan sì dọ́gba. " * 20


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    tokenizer = tiny_tokenizer()
    folder = make_tiny_checkpoint(tmp_path / "source", vocab_size=tokenizer.get_vocab_size())
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_scales_are_the_largest_values_and_a_quarter_more(tmp_path: Path) -> None:
    """Read from the cache of a float32 export, which plain onnxruntime fills."""
    exported = export_tiny(tmp_path, {"n_heads": 2, "n_embd": 32, "n_layer": 2}, kv_cache_dtype="float32")
    tokens = np.random.default_rng(1).integers(exported.shape["vocab_size"], size=(3, 64))
    model = GPTJXForCausalLM.from_pretrained(tmp_path / "checkpoint")
    scales = measure_scales(model, [(0, row.tolist()) for row in tokens])
    assert not any(block.attn.c_attn._forward_hooks for block in model.transformer.h)
    loop = FeedingLoop(exported, rows=3, capacity=64)
    loop.run(dict(enumerate(tokens)))
    for layer, found in enumerate(scales):
        for scale, tensor in ((found.key, loop.keys(layer)), (found.value, loop.values(layer))):
            largest = np.abs(tensor).max(axis=(0, 2))
            assert (scale.shape, scale.dtype) == ((1, 2, 1, 16), np.float32)
            np.testing.assert_allclose(scale[0, :, 0], largest * 1.25 / 127, rtol=1e-4)


def test_a_channel_that_is_always_zero_has_a_scale(tmp_path: Path) -> None:
    model = GPTJXForCausalLM.from_pretrained(make_tiny_checkpoint(tmp_path))
    model.transformer.h[0].attn.c_attn.weight.data[16:20] = 0
    scale = measure_scales(model, [(0, [1, 2, 3])])[0].key.flatten()
    assert (scale > 0).all()
    assert np.isfinite(1 / scale).all()


@pytest.mark.parametrize("tokens", [1, 7, 300, 5000, 100_000])
@pytest.mark.parametrize("block_size", [1, 64, 1000, 32768])
def test_pieces_reach_over_the_text_and_the_positions(tokens: int, block_size: int) -> None:
    pieces = calibration_pieces(range(tokens), block_size)
    assert 1 <= len(pieces) <= MAX_PIECES
    for first, piece in pieces:
        assert 0 <= first <= first + len(piece) <= block_size
        assert 1 <= len(piece) <= PIECE_TOKENS
        assert piece == list(range(piece[0], piece[0] + len(piece)))
    firsts = [first for first, _ in pieces]
    assert firsts == sorted(firsts)
    assert firsts[0] == 0
    if len(pieces) > 1:
        assert firsts[-1] + PIECE_TOKENS >= block_size - PIECE_TOKENS
    texts = {piece[0] for _, piece in pieces}
    assert max(texts) >= tokens * (1 - 2 / len(texts)) - 1  # the end is read, or nearly


def test_a_short_text_is_read_again_piece_by_piece() -> None:
    pieces = calibration_pieces(range(700), 1300)
    assert [(first, piece[0], len(piece)) for first, piece in pieces] == [
        (0, 0, 512),
        (394, 512, 188),
        (788, 0, 512),
    ]


def test_a_text_of_ones_own(checkpoint: Path, tmp_path: Path) -> None:
    """Other scales are another model: sessions of the one do not load in the other."""
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    own = export(checkpoint, tmp_path / "own")
    given = export(checkpoint, tmp_path / "given", calibration=text)
    again = export(checkpoint, tmp_path / "again", calibration=str(text))
    assert own.calibration == "the model's own text"
    assert (given.calibration, given.calibration_tokens) == (str(text), again.calibration_tokens)
    assert given.weights_hash == again.weights_hash != own.weights_hash
    assert own.sizes_mib["weights.bin"] == given.sizes_mib["weights.bin"]


def test_float_caches_have_no_calibration(checkpoint: Path, tmp_path: Path) -> None:
    report = export(checkpoint, tmp_path / "model", kv_cache_dtype="float16")
    assert (report.calibration, report.calibration_tokens) == (None, 0)


def export(checkpoint: Path, out: Path, **options: Any) -> Any:
    return export_model(
        checkpoint,
        out,
        **{"dtype": "float32", "kv_cache_dtype": "int8", "verify": False, "progress": False, **options},
    )
