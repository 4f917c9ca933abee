"""The model in onnxruntime's own operators, both of its graphs, against the float64 NumPy model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from sabiyarn_edge.export.block_plan import BlockPlan
from sabiyarn_edge.modeling import GPTJXConfig
from tests.data.make_tiny_checkpoint import SHAPE, random_tensors
from tests.export.models import rounded_to_bytes
from tests.reference_gptjx import ReferenceGPTJX

onnxruntime_graph = pytest.importorskip("benchmarks.onnxruntime_graph", reason="needs a checkout")

TOKENS = np.random.default_rng(2).integers(SHAPE["vocab_size"], size=20)
CHUNKS = [12, 1, 7]
CAPACITY = 32
BOUND = 0.1  # of the logits' standard deviation: activations are rounded to 8 bits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("onnxruntime")
    onnxruntime_graph.write_onnxruntime_folder(
        made, GPTJXConfig(**SHAPE), dict(random_tensors()), BlockPlan("int8", 8, 16, ())
    )
    return made


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    stored = {
        name: rounded_to_bytes(values, size=16) if values.ndim == 2 else values
        for name, values in random_tensors().items()
    }
    oracle = ReferenceGPTJX(stored, n_layer=SHAPE["n_layer"], n_heads=SHAPE["n_heads"])
    return oracle.logits(TOKENS)


def run_chunks(session: onnxruntime.InferenceSession, in_place: bool) -> np.ndarray:
    """Logits [tokens, vocab_size]."""
    slots = CAPACITY if in_place else 0
    head_dim = SHAPE["n_embd"] // SHAPE["n_heads"]
    names = [f"{layer}.{part}" for layer in range(SHAPE["n_layer"]) for part in ("key", "value")]
    past = {name: np.zeros((1, SHAPE["n_heads"], slots, head_dim), np.float16) for name in names}
    logits, end = [], 0
    for count in CHUNKS:
        begin, end = end, end + count
        feeds = {
            "input_ids": TOKENS[None, begin:end],
            "position_ids": np.arange(begin, end)[None],
            "logits_index": np.arange(count),
            **{f"past_key_values.{name}": array for name, array in past.items()},
        }
        if in_place:
            feeds["seqlens_k"] = np.array([end - 1], np.int32)
            feeds["total_sequence_length"] = np.array([end], np.int32)
        else:
            feeds["attention_mask"] = np.triu(np.full((1, 1, count, end), -np.inf, np.float32), k=begin + 1)
        found, *present = session.run(["logits", *(f"present.{name}" for name in names)], feeds)
        for name, new in zip(names, present, strict=True):
            past[name] = new if in_place else np.concatenate([past[name], new], axis=2)
        logits.append(found[0])
    return np.concatenate(logits)


@pytest.mark.parametrize("in_place", [True, False], ids=["in-place", "concatenating"])
def test_chunks_equal_the_full_forward(folder: Path, expected: np.ndarray, in_place: bool) -> None:
    name = "decoder.onnx" if in_place else onnxruntime_graph.CONCATENATING_GRAPH
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    logits = run_chunks(onnxruntime.InferenceSession(folder / name, options), in_place)
    assert np.abs(logits - expected).max() < BOUND * expected.std()
