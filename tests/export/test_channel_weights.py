"""int8-per-channel: products against a NumPy twin of integers, and the whole model against the oracle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from sabiyarn_edge.cpu_features import lacks_vnni
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.export.channel_weights import ChannelWeights
from sabiyarn_edge.export.graph_builder import GraphBuilder
from sabiyarn_edge.export.tensors import Array, Tensor
from sabiyarn_edge.export.weight_format import Matrix
from sabiyarn_edge.export.weight_formats import WeightOptions, check_weight_options
from sabiyarn_edge.weights_file import WeightsHeader
from tests.export.models import SHAPES, FeedingLoop, export_tiny, product_model, rounded_to_channels

RNG = np.random.default_rng(3)
WEIGHTS = RNG.standard_normal((11, 96)).astype(np.float32)
WEIGHTS[4] = 0  # no range to divide by
BIAS = RNG.standard_normal(11).astype(np.float32)
ACTIVATIONS = (RNG.standard_normal((3, 5, 96)) * 10.0 ** RNG.integers(-3, 3, (3, 5, 1))).astype(np.float32)

exact = pytest.mark.skipif(
    Path("/proc/cpuinfo").exists() and lacks_vnni(Path("/proc/cpuinfo").read_text(encoding="utf-8")),
    reason="products of this CPU's kernels are cut off",
)

Emit = Callable[[GraphBuilder, str, Matrix], str]


def run(emit: Emit, x: Array) -> Array:
    """What onnxruntime makes of x with the nodes that `emit` adds for WEIGHTS."""
    session = onnxruntime.InferenceSession(product_model(emit, WEIGHTS, x.dtype.name))
    [found] = session.run(None, {"x": x})
    return np.asarray(found)


def product(graph: GraphBuilder, x: str, weight: Matrix) -> str:
    return ChannelWeights("int8-per-channel").linear(graph, x, weight, None, "product")


def twin(x: Array, weights: Array) -> Array:
    """The same product: integers in int64, the rest in float64."""
    scales = np.abs(weights).max(axis=1) / np.float32(127)
    scales[scales == 0] = 1
    codes = np.rint(weights / scales[:, None]).astype(np.int64)
    ranges = np.abs(x).max(axis=-1, keepdims=True)
    rounded = np.rint(x / ranges / np.float32(1 / 127)).astype(np.int64)
    return (rounded @ codes.T) * scales.astype(np.float64) * ranges.astype(np.float64) / 127


@exact
def test_a_product_is_that_of_integers() -> None:
    expected = twin(ACTIVATIONS, WEIGHTS)
    # float32 has 24 bits for scaling an exact integer sum; a wrong code would show in the third digit.
    assert run(product, ACTIVATIONS) == pytest.approx(expected, rel=1e-6, abs=1e-6 * expected.std())


@exact
def test_a_product_is_near_the_unrounded_one() -> None:
    unrounded = ACTIVATIONS.astype(np.float64) @ WEIGHTS.T.astype(np.float64)
    spread = np.abs(unrounded).mean(axis=-1, keepdims=True)
    # 96 products, in each of which both factors are off by up to half a step of a 127th of their range.
    assert (np.abs(run(product, ACTIVATIONS) - unrounded) / spread).max() < 0.1


def test_a_token_does_not_depend_on_those_beside_it() -> None:
    together = run(product, ACTIVATIONS)
    for row, position in np.ndindex(3, 5):
        alone = run(product, ACTIVATIONS[row : row + 1, position : position + 1])
        np.testing.assert_array_equal(alone[0, 0], together[row, position])


def test_a_token_of_zeros_gives_zeros() -> None:
    x = ACTIVATIONS.copy()
    x[1, 2] = 0
    found = run(product, x)
    np.testing.assert_array_equal(found[1, 2], np.zeros(11))
    np.testing.assert_array_equal(np.delete(found[1], 2, 0), np.delete(run(product, ACTIVATIONS)[1], 2, 0))


def test_a_bias_is_added() -> None:
    def with_bias(graph: GraphBuilder, x: str, weight: Matrix) -> str:
        bias = Tensor("bias", "float32", BIAS.shape, lambda: BIAS)
        return ChannelWeights("int8-per-channel").linear(graph, x, weight, bias, "product")

    np.testing.assert_array_equal(run(with_bias, ACTIVATIONS), run(product, ACTIVATIONS) + BIAS)


def test_an_embedding_is_the_rows_as_they_are_stored() -> None:
    def embedding(graph: GraphBuilder, ids: str, table: Matrix) -> str:
        return ChannelWeights("int8-per-channel").embedding(graph, ids, table, "embedding")

    ids = np.array([[0, 10, 4], [7, 7, 1]])
    expected = rounded_to_channels(WEIGHTS)[ids]
    assert run(embedding, ids) == pytest.approx(expected, rel=1e-6)  # one product in float32


@exact
@pytest.mark.parametrize("shape", SHAPES)
def test_the_model_is_near_the_oracle(tmp_path: Path, shape: str) -> None:
    """Of the same stored weights, with unrounded activations."""
    exported = export_tiny(tmp_path, SHAPES[shape], dtype="int8-per-channel", kv_cache_dtype="float32")
    tokens = np.random.default_rng(5).integers(SHAPES[shape].get("vocab_size", 97), size=(2, 40))
    loop = FeedingLoop(exported, rows=2, capacity=64)
    found = np.concatenate([loop.feed(tokens[:, :30]), loop.feed(tokens[:, 30:31])], axis=1)
    for row in range(2):
        expected = exported.oracle().logits(tokens[row, :31])
        # Measured 0.02 to 0.05: each product rounds its inputs to 1/254 of their range. A matrix in the wrong place, or
        # a scale of another channel, costs half the spread and more.
        assert np.abs(found[row] - expected).max() < 0.1 * expected.std()


def test_wte_stands_once(tmp_path: Path) -> None:
    exported = export_tiny(tmp_path, SHAPES["wide"], dtype="int8-per-channel")
    tensors = WeightsHeader.read(exported.folder / "weights.bin").tensors
    wte = [tensor for name, tensor in tensors.items() if "wte" in name and tensor.dtype == "int8"]
    assert [tensor.shape for tensor in wte] == [(1009, 128)]


def test_there_are_no_blocks() -> None:
    with pytest.raises(
        InvalidInputError, match=r"block size \(64\) was given, but int8-per-channel has no blocks"
    ):
        check_weight_options(WeightOptions(dtype="int8-per-channel", block_size=64))
