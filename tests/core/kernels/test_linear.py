"""Products with tiled weights: every instruction set gives the same bits, and those of the definition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sabiyarn_edge import _core, _core_testing
from tests.core.kernels import twins_linear as twin
from tests.core.kernels.twins_linear import FloatWeights, Weights, random_floats, random_weights

BLOCK_SIZES = [16, 32, 48, 64, 128, 256]
FLOATS = ["float32", "float16", "bfloat16"]
WEIGHT_TYPES = [*FLOATS, "int8", "int4"]


def random_matrix(
    rng: np.random.Generator, outputs: int, inputs: int, weight_type: str
) -> Weights | FloatWeights:
    if weight_type in FLOATS:
        return random_floats(rng, outputs, inputs, weight_type)
    return random_weights(rng, outputs, inputs, 32, int(weight_type.removeprefix("int")))


def all_sets(x: np.ndarray, weights: Weights | FloatWeights, **options: Any) -> np.ndarray:
    """The product, which must be the same on every instruction set of this CPU."""
    tiled = weights.tiled()
    results = [
        _core_testing.linear(x, tiled, **weights.shape, kernels=name, **options)
        for name in _core.linear_kernels()
    ]
    for result in results[1:]:
        np.testing.assert_array_equal(results[0], result)
    return results[0]


def check(x: np.ndarray, weights: Weights | FloatWeights, *, gelu: bool = False, **options: Any) -> None:
    result = all_sets(x, weights, gelu=gelu, **options)
    expected, slack = twin.linear(x, weights, gelu_too=gelu, **options)
    assert result.dtype == np.float32
    excess = np.abs(result - expected) - slack
    assert excess.max() <= 0, (excess.max(), np.unravel_index(excess.argmax(), excess.shape))


def rows(rng: np.random.Generator, num_rows: int, inputs: int) -> np.ndarray:
    return rng.standard_normal((num_rows, inputs)).astype(np.float32)


def test_the_last_instruction_set_runs_everywhere() -> None:
    assert _core.linear_kernels()[-1] == "plain"


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_every_number_of_rows(bits: int, block_size: int) -> None:
    rng = np.random.default_rng(block_size + bits)
    for num_rows in range(1, 10):
        inputs = block_size * int(rng.integers(1, 4))
        weights = random_weights(rng, int(rng.integers(1, 36)), inputs, block_size, bits)
        check(rows(rng, num_rows, inputs), weights)


@pytest.mark.parametrize("weight_type", WEIGHT_TYPES)
@pytest.mark.parametrize("outputs", [1, 7, 8, 9, 16, 29])
@pytest.mark.parametrize("after", ["bias", "residual", "gelu", "all"])
def test_what_follows_the_product(weight_type: str, outputs: int, after: str) -> None:
    rng = np.random.default_rng(outputs)
    weights = random_matrix(rng, outputs, 96, weight_type)
    options: dict[str, Any] = {"gelu": after in ("gelu", "all")}
    if after in ("bias", "all"):
        options["bias"] = rng.standard_normal(outputs).astype(np.float32)
    if after in ("residual", "all"):
        options["residual"] = rows(rng, 5, outputs)
    check(rows(rng, 5, 96), weights, **options)


@pytest.mark.parametrize("weight_type", WEIGHT_TYPES)
@pytest.mark.parametrize("with_bias", [False, True])
def test_a_norm_before_the_product(weight_type: str, with_bias: bool) -> None:
    rng = np.random.default_rng(3)
    weights = random_matrix(rng, 20, 128, weight_type)
    scale = rng.uniform(0.5, 2, 128).astype(np.float32)
    bias = rng.standard_normal(128).astype(np.float32) if with_bias else None
    check(3 * rows(rng, 6, 128) + 7, weights, norm_scale=scale, norm_bias=bias)


def test_a_norm_alone() -> None:
    """One-hot weights, so that nothing but the rounding of the normalized values stands between."""
    rng = np.random.default_rng(5)
    x = 1e3 * rows(rng, 3, 64) + 500
    weights = Weights(127 * np.eye(64, dtype=int), np.full((64, 1), 1 / 127, np.float32), None, 64)
    ones = np.ones(64, np.float32)
    expected = twin.layer_norm(x, ones, None)
    unit = np.abs(expected).max(axis=-1, keepdims=True) / 127
    assert (np.abs(all_sets(x, weights, norm_scale=ones) - expected) <= 0.51 * unit).all()


@pytest.mark.parametrize("code", [-127, 127])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_the_largest_codes_saturate_nothing(code: int, sign: int, block_size: int) -> None:
    weights = Weights(np.full((9, block_size), code), np.full((9, 1), 0.01, np.float32), None, block_size)
    result = all_sets(np.full((5, block_size), sign * 127, np.float32), weights)
    np.testing.assert_allclose(result, 0.01 * code * sign * 127 * block_size, rtol=3 * twin.EPSILON)


@pytest.mark.parametrize("code", [0, 15])
@pytest.mark.parametrize("scale", [-127, 127])
@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_the_largest_entries_and_scales_saturate_nothing(
    code: int, scale: int, sign: int, block_size: int
) -> None:
    scales = np.full((9, block_size // twin.SUB_BLOCK), scale)
    weights = Weights(np.full((9, block_size), code), scales, np.full(9, 0.5, np.float32), block_size)
    result = all_sets(np.full((5, block_size), sign * 127, np.float32), weights)
    expected = 0.5 * scale * twin.TABLE[code] * sign * 127 * block_size
    np.testing.assert_allclose(result, expected, rtol=3 * twin.EPSILON)


@pytest.mark.parametrize("code", [0, 7, 8, 15])
def test_entries_of_4_bits_meet_codes_of_either_sign(code: int) -> None:
    """Half of the row at -127 and half at 127, in every order of four: sums of neighbours are at their largest."""
    x = np.array([[127 if pattern >> (k % 4) & 1 else -127 for k in range(64)] for pattern in range(16)])
    weights = Weights(np.full((8, 64), code), np.full((8, 4), 127), np.ones(8, np.float32), 64)
    expected = (x.sum(axis=1) * 127 * twin.TABLE[code])[:, None]  # below 2^24: exact
    np.testing.assert_array_equal(all_sets(x.astype(np.float32), weights), np.broadcast_to(expected, (16, 8)))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("size", [1e-30, 1e-20, 1e20, 1e30])
def test_tiny_and_huge_rows(bits: int, size: float) -> None:
    rng = np.random.default_rng(3)
    check((size * rows(rng, 4, 64)).astype(np.float32), random_weights(rng, 11, 64, 16, bits))


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("size", [0.0, 1e-45, 1e-37])
def test_blocks_of_nothing_give_the_bias(bits: int, size: float) -> None:
    """1 over such a magnitude is too large for float32: the codes are zeros."""
    rng = np.random.default_rng(4)
    bias = rng.standard_normal(11).astype(np.float32)
    x = np.full((3, 64), size, np.float32)
    x[1, 16:32] = 1.0  # one block beside them keeps its values
    weights = random_weights(rng, 11, 64, 16, bits)
    result = all_sets(x, weights, bias=bias)
    np.testing.assert_array_equal(result[[0, 2]], [bias, bias])
    check(x, weights, bias=bias)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf], ids=str)
def test_what_is_not_finite_is_not_lost(bits: int, value: float) -> None:
    rng = np.random.default_rng(14)
    weights, x = random_weights(rng, 11, 64, 32, bits), rows(rng, 6, 64)
    clean = all_sets(x, weights)
    x[4, 37] = value
    result = all_sets(x, weights)
    assert not np.isfinite(result[4]).any()
    np.testing.assert_array_equal(np.delete(result, 4, axis=0), np.delete(clean, 4, axis=0))


@pytest.mark.parametrize("weight_type", WEIGHT_TYPES)
def test_a_row_does_not_depend_on_its_neighbours(weight_type: str) -> None:
    """Bit for bit: alone, among few, among many, with a norm and all that follows a product. 544 inputs are three
    slices of those that products of floats take at a time."""
    rng = np.random.default_rng(6)
    weights, x = random_matrix(rng, 21, 544, weight_type), rows(rng, 40, 544)
    scale, bias = rng.uniform(0.5, 2, 544).astype(np.float32), rng.standard_normal(21).astype(np.float32)
    residual = rows(rng, 40, 21)

    def product(part: slice) -> np.ndarray:
        return all_sets(x[part], weights, norm_scale=scale, bias=bias, gelu=True, residual=residual[part])

    together = product(slice(0, 40))
    for count in (1, 2, 3, 7, 16):
        for first in range(0, 40, count):
            part = slice(first, min(first + count, 40))
            np.testing.assert_array_equal(product(part), together[part])


@pytest.mark.parametrize("weight_type", FLOATS)
def test_floats_for_every_number_of_rows(weight_type: str) -> None:
    rng = np.random.default_rng(12)
    for num_rows in range(1, 16):
        weights = random_floats(rng, int(rng.integers(1, 40)), 8 * int(rng.integers(1, 80)), weight_type)
        check(rows(rng, num_rows, weights.numbers.shape[1]), weights)


@pytest.mark.parametrize("weight_type", FLOATS)
def test_a_sum_is_one_chain_of_fused_multiply_adds(weight_type: str) -> None:
    """Each step rounds once. Python's integers hold what float32 cannot: (2^12 + 1)^2 less its float32 neighbour."""
    number = np.float32(2**7 + 1)  # bfloat16 has 8 bits
    factor = np.float32(2**17 + 1)
    exact = int(number) * int(factor)
    rounded = np.float32(exact)
    assert exact != int(rounded)
    weights = FloatWeights(np.array([[1.0, number, *[0.0] * 6]], np.float32), weight_type)
    x = np.array([[-rounded, factor, *[0.0] * 6]], np.float32)
    assert all_sets(x, weights)[0, 0] == exact - int(rounded)


@pytest.mark.parametrize("weight_type", FLOATS)
def test_every_stored_value_is_widened_exactly(weight_type: str) -> None:
    """One row of each: products of it with 1 are the values, subnormal and infinite ones too."""
    if weight_type == "float32":
        rng = np.random.default_rng(2)
        bits = rng.integers(0, 2**32, 4096, dtype=np.uint32)
        values = bits.view(np.float32)
        values = np.where(np.isnan(values), np.float32(0), values)
    else:
        every = np.arange(2**16, dtype=np.uint16)
        with np.errstate(invalid="ignore"):  # ARM's NumPy tells of signalling NaNs
            values = (
                every.view(np.float16).astype(np.float32)
                if weight_type == "float16"
                else (every.astype(np.uint32) << 16).view(np.float32)
            )
        values = np.where(np.isnan(values), np.float32(0), values)
    numbers = np.zeros((len(values), 8), np.float32)
    numbers[:, 3] = values
    tiles = np.zeros((len(values) // 8, 8, 8), np.float32)
    tiles[:, 3] = values.reshape(-1, 8)
    stored = {
        "float32": lambda: tiles,
        "float16": lambda: tiles.astype(np.float16),
        "bfloat16": lambda: (tiles.view(np.uint32) >> 16).astype(np.uint16),
    }[weight_type]()
    x = np.zeros((1, 8), np.float32)
    x[0, 3] = 1
    for name in _core.linear_kernels():
        result = _core_testing.linear(
            x, stored.reshape(-1).view(np.uint8), outputs=len(values), weight_type=weight_type, kernels=name
        )
        with np.errstate(invalid="ignore"):
            np.testing.assert_array_equal(result[0], values)


@pytest.mark.parametrize("seed", range(20))
def test_random_shapes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    block_size, bits = int(rng.choice(BLOCK_SIZES)), int(rng.choice([8, 4]))
    inputs, outputs, num_rows = (
        block_size * int(rng.integers(1, 6)),
        int(rng.integers(1, 60)),
        int(rng.integers(1, 20)),
    )
    weights = random_weights(rng, outputs, inputs, block_size, bits)
    x = rows(rng, num_rows, inputs) * np.float32(10.0) ** rng.integers(-4, 5, (num_rows, 1)).astype(
        np.float32
    )
    options: dict[str, Any] = {"gelu": bool(rng.integers(2))}
    if rng.integers(2):
        options["bias"] = rng.standard_normal(outputs).astype(np.float32)
    if rng.integers(2):
        options["residual"] = rows(rng, num_rows, outputs)
    check(x, weights, **options)


@pytest.mark.parametrize("weight_type", WEIGHT_TYPES)
def test_no_rows(weight_type: str) -> None:
    weights = random_matrix(np.random.default_rng(0), 9, 32, weight_type)
    assert all_sets(np.zeros((0, 32), np.float32), weights).shape == (0, 9)


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("block_size", [16, 32])
def test_read_row(bits: int, block_size: int) -> None:
    weights = random_weights(np.random.default_rng(7), 19, 2 * block_size, block_size, bits)
    tiled, expected = weights.tiled(), weights.values()
    for row in range(19):
        values = _core_testing.read_row(tiled, row, inputs=2 * block_size, **weights.shape)
        np.testing.assert_allclose(values, expected[row], rtol=twin.EPSILON)


@pytest.mark.parametrize("weight_type", FLOATS)
def test_read_row_of_floats(weight_type: str) -> None:
    weights = random_floats(np.random.default_rng(7), 19, 24, weight_type)
    tiled = weights.tiled()
    for row in range(19):
        values = _core_testing.read_row(tiled, row, inputs=24, **weights.shape)
        np.testing.assert_array_equal(values, weights.numbers[row])


def test_gelu() -> None:
    """twins_linear.GELU_ERROR says what its error is made of."""
    grid = np.concatenate([np.linspace(-12, 12, 100_001), np.geomspace(1e-30, 1e30, 999)]).astype(np.float32)
    x = np.concatenate([grid, -grid])
    expected = twin.gelu(x.astype(float))
    assert (np.abs(_core_testing.gelu(x) - expected) <= twin.GELU_ERROR * np.abs(x)).all()
    np.testing.assert_array_equal(_core_testing.gelu(np.float32([0, 20, 1e30])), np.float32([0, 20, 1e30]))


def test_gelu_keeps_the_shape_and_every_value() -> None:
    x = np.random.default_rng(8).standard_normal((3, 5)).astype(np.float32)
    result = _core_testing.gelu(x)
    assert result.shape == x.shape
    for at, value in np.ndenumerate(x):
        assert _core_testing.gelu(np.array([value]))[0] == result[at]


def test_shapes_that_do_not_fit_are_named() -> None:
    weights = random_weights(np.random.default_rng(0), 10, 32, 16, 8)
    tiled, x, shape = weights.tiled(), np.zeros((2, 32), np.float32), {**weights.shape, "kernels": "plain"}
    with pytest.raises(ValueError, match=r"x has 1 dimensions; it must have two: \[rows, inputs\]"):
        _core_testing.linear(x[0], tiled, **shape)
    with pytest.raises(
        ValueError, match=r"weights have 639 bytes; \[10, 32\] with 8 bits in blocks of 16 take 640"
    ):
        _core_testing.linear(x, np.zeros(639, np.uint8), **shape)
    with pytest.raises(
        ValueError, match="block_size is 12; it must be a multiple of 16 that divides the 32 inputs"
    ):
        _core_testing.linear(x, tiled, **{**shape, "block_size": 12})
    with pytest.raises(ValueError, match="block_size is 0; it must be a multiple of 16 that divides the 32"):
        _core_testing.linear(x, tiled, **{**shape, "block_size": 0})
    with pytest.raises(ValueError, match="block_size is 16; it must be 0: float weights have no blocks"):
        _core_testing.linear(x, tiled, **{**shape, "weight_type": "float16"})
    with pytest.raises(ValueError, match=r"weights have 640 bytes; \[10, 32\] with 16 bits take 1024"):
        _core_testing.linear(x, tiled, **{**shape, "weight_type": "float16", "block_size": 0})
    with pytest.raises(ValueError, match="weight_type is 'int2'; it must be float32, float16, bfloat16"):
        _core_testing.linear(x, tiled, **{**shape, "weight_type": "int2"})
    with pytest.raises(ValueError, match=r"weights are \[10, 12\]; outputs must be 1 to 2\^28, and inputs"):
        _core_testing.linear(x[:, :12].copy(), tiled, **shape)
    with pytest.raises(ValueError, match=r"outputs must be 1 to 2\^28"):
        _core_testing.linear(x, tiled, **{**shape, "outputs": 2**60})
    with pytest.raises(ValueError, match=r"kernels is 'sse9'; this CPU has '.*plain'"):
        _core_testing.linear(x, tiled, **{**shape, "kernels": "sse9"})
    with pytest.raises(ValueError, match=r"bias has shape \[9\]; it must be \[10\]"):
        _core_testing.linear(x, tiled, **shape, bias=np.zeros(9, np.float32))
    with pytest.raises(ValueError, match=r"residual has shape \[10, 2\]; it must be \[2, 10\]"):
        _core_testing.linear(x, tiled, **shape, residual=np.zeros((10, 2), np.float32))
    with pytest.raises(ValueError, match=r"norm_scale has shape \[10\]; it must be \[32\]"):
        _core_testing.linear(x, tiled, **shape, norm_scale=np.zeros(10, np.float32))
    with pytest.raises(ValueError, match="norm_bias is given without norm_scale"):
        _core_testing.linear(x, tiled, **shape, norm_bias=np.zeros(32, np.float32))
    with pytest.raises(IndexError, match="row 10 is not one of the 10 rows"):
        _core_testing.read_row(tiled, 10, inputs=32, **weights.shape)
    with pytest.raises(TypeError):
        _core_testing.linear(x.astype(float), tiled, **shape)


def test_the_peak_of_the_dot_products_is_that_of_this_cpus_instructions() -> None:
    for name in _core.linear_kernels()[:-1]:
        assert 1e9 < _core_testing.dot_product_peak(name, 0.001) < 1e13
    for name, reason in (("plain", "have no dot products"), ("mmx", "this CPU has")):
        with pytest.raises(ValueError, match=reason):
            _core_testing.dot_product_peak(name)
