"""Past and present in the same memory, as the runtime binds them, against the float64 oracle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sabiyarn_edge.export.plain_decoder import PlainDecoder
from sabiyarn_edge.model_folder.config import ModelConfig
from tests.export.models import Exported, export_tiny

LENGTHS = [5, 17, 1]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_tiny(tmp_path_factory.mktemp("decoder"), kv_cache_dtype="float32")


def make_decoder(exported: Exported, *, rows: int, capacity: int = 32) -> PlainDecoder:
    return PlainDecoder(exported.folder, ModelConfig.load(exported.folder), rows=rows, capacity=capacity)


def random_tokens(*shape: int) -> np.ndarray:
    return np.random.default_rng(3).integers(97, size=shape)


def test_rows_share_steps_but_nothing_else(exported: Exported) -> None:
    tokens = random_tokens(3, 24)
    decoder = make_decoder(exported, rows=3)
    for row, length in enumerate(LENGTHS):
        decoder.step(tokens[row, : length - 1], logits_index=[], row=row) if length > 1 else None
        logits = decoder.step(tokens[row, length - 1 : length], row=row)
        np.testing.assert_allclose(logits[-1], exported.oracle().logits(tokens[row, :length])[-1], atol=1e-4)
    for step in range(5):
        logits = decoder.step(np.stack([tokens[row, [n + step]] for row, n in enumerate(LENGTHS)]))
        for row, length in enumerate(LENGTHS):
            expected = exported.oracle().logits(tokens[row, : length + step + 1])[-1]
            np.testing.assert_allclose(logits[row, 0], expected, atol=1e-4)
    assert decoder.lengths.tolist() == [length + 5 for length in LENGTHS]


def test_a_lowered_length_forgets(exported: Exported) -> None:
    tokens = random_tokens(20)
    decoder = make_decoder(exported, rows=1)
    decoder.step(random_tokens(1, 30)[0], row=0)
    decoder.lengths[0] = 0
    np.testing.assert_allclose(decoder.step(tokens, row=0), exported.oracle().logits(tokens), atol=1e-4)


def test_only_the_graph_and_the_weights_are_needed(exported: Exported, tmp_path: Path) -> None:
    for name in ("decoder.onnx", "weights.bin"):
        (tmp_path / name).write_bytes((exported.folder / name).read_bytes())
    decoder = PlainDecoder(tmp_path, ModelConfig.load(exported.folder), rows=1, capacity=8)
    assert decoder.step(np.array([1, 2, 3]), row=0).shape == (3, 97)
