"""Slow NumPy twins of products with tiled weights: sums in float64, and how far float32 may be from them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

EPSILON = 2.0**-24
"""The largest relative error of one rounding to float32."""

TILE_OUTPUTS = 8


SUB_BLOCK = 16
"""Weights of 4 bits that share a scale."""

TABLE = np.array([-31, -22, -17, -13, -10, -7, -4, -1, 1, 3, 6, 9, 12, 16, 21, 28])
"""What codes of 4 bits mean."""


@dataclass(frozen=True)
class Weights:
    """A matrix [outputs, inputs] in blocks of block_size inputs, in 8 or 4 bits.

    8 bits: codes -127 ... 127, and scales float32 [outputs, blocks]. 4 bits: codes 0 ... 15, scales of -127 ... 127
    [outputs, inputs / 16], and row_scales float32 [outputs].
    """

    codes: np.ndarray
    scales: np.ndarray
    row_scales: np.ndarray | None
    block_size: int

    @property
    def bits(self) -> int:
        return 8 if self.row_scales is None else 4

    @property
    def shape(self) -> dict[str, Any]:
        """As the functions of _core take it, without the inputs."""
        return {
            "outputs": len(self.codes),
            "weight_type": f"int{self.bits}",
            "block_size": self.block_size,
        }

    def tiled(self) -> np.ndarray:
        """csrc/core/kernels/tiled_matrix.hpp, byte by byte in the order of its description."""
        outputs, inputs = self.codes.shape
        parts: list[bytes] = []
        for first in range(0, outputs, TILE_OUTPUTS):
            rows = [row if row < outputs else None for row in range(first, first + TILE_OUTPUTS)]
            if self.row_scales is not None:
                parts.append(stored_column(self.row_scales[:, None], rows, 0, np.float32))
            for begin in range(0, inputs, self.block_size):
                end = begin + self.block_size
                if self.row_scales is None:
                    parts.append(stored_column(self.scales, rows, begin // self.block_size, np.float32))
                else:
                    for sub in range(begin // SUB_BLOCK, end // SUB_BLOCK):
                        parts.append(stored_column(self.scales, rows, sub, np.int8))
                step = 4 if self.bits == 8 else 8
                for at in range(begin, end, step):
                    for row in rows:
                        codes = np.zeros(step, int) if row is None else self.codes[row, at : at + step]
                        both = codes if self.bits == 8 else codes[:4] + 16 * codes[4:]
                        parts.append((both & 255).astype(np.uint8).tobytes())
        return np.frombuffer(b"".join(parts), np.uint8).copy()

    def values(self) -> np.ndarray:
        """float64 [outputs, inputs]."""
        scales = self.scales.astype(float)
        if self.row_scales is None:
            return self.codes * np.repeat(scales, self.block_size, axis=1)
        return (
            self.row_scales.astype(float)[:, None] * np.repeat(scales, SUB_BLOCK, axis=1) * TABLE[self.codes]
        )


def stored_column(table: np.ndarray, rows: list[int | None], column: int, dtype: type[np.generic]) -> bytes:
    """One number of each row of a tile; 0 where there is no row."""
    return np.array([0 if row is None else table[row, column] for row in rows], dtype).tobytes()


@dataclass(frozen=True)
class FloatWeights:
    """A matrix [outputs, inputs] of float32, float16 or bfloat16, as float32 values that the type holds exactly."""

    numbers: np.ndarray
    weight_type: str

    @property
    def shape(self) -> dict[str, Any]:
        return {"outputs": len(self.numbers), "weight_type": self.weight_type}

    def tiled(self) -> np.ndarray:
        """csrc/core/kernels/tiled_matrix.hpp, number by number in the order of its description."""
        outputs, inputs = self.numbers.shape
        parts: list[bytes] = []
        for first in range(0, outputs, TILE_OUTPUTS):
            for k in range(inputs):
                for row in range(first, first + TILE_OUTPUTS):
                    parts.append(stored(self.numbers[row, k] if row < outputs else 0.0, self.weight_type))
        return np.frombuffer(b"".join(parts), np.uint8).copy()

    def values(self) -> np.ndarray:
        """float64 [outputs, inputs]."""
        return self.numbers.astype(float)


def stored(value: float, weight_type: str) -> bytes:
    """The bytes of a number that the type holds exactly."""
    if weight_type == "bfloat16":
        return np.float32(value).tobytes()[2:]
    return np.array(value, weight_type).tobytes()


def random_floats(rng: np.random.Generator, outputs: int, inputs: int, weight_type: str) -> FloatWeights:
    values = rng.standard_normal((outputs, inputs)).astype(np.float32)
    if weight_type == "bfloat16":
        values = (values.view(np.uint32) & 0xFFFF0000).view(np.float32)
    elif weight_type == "float16":
        values = values.astype(np.float16).astype(np.float32)
    return FloatWeights(values, weight_type)


def random_weights(
    rng: np.random.Generator, outputs: int, inputs: int, block_size: int, bits: int
) -> Weights:
    if bits == 8:
        scales = rng.uniform(-0.1, 0.1, (outputs, inputs // block_size)).astype(np.float32)
        return Weights(rng.integers(-127, 128, (outputs, inputs)), scales, None, block_size)
    return Weights(
        rng.integers(0, 16, (outputs, inputs)),
        rng.integers(-127, 128, (outputs, inputs // SUB_BLOCK)),
        rng.uniform(-0.1, 0.1, outputs).astype(np.float32) / 127,
        block_size,
    )


def rounded_rows(x: np.ndarray, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes [rows, blocks, block_size] and scales [rows, blocks] of float32 rows as quantized_activations.hpp says.

    In float32, which decides where a value between two codes goes.
    """
    blocks = x.reshape(len(x), -1, block_size)
    largest = np.abs(blocks).max(axis=-1)
    with np.errstate(divide="ignore", over="ignore"):
        inverse = np.where(largest > 1e-36, np.float32(127) / largest, np.float32(0))
    return np.rint(blocks * inverse[..., None]).astype(np.int64), largest / np.float32(127)


def layer_norm(x: np.ndarray, scale: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    x = x.astype(float)
    centred = x - x.mean(axis=-1, keepdims=True)
    result = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5) * scale
    return result if bias is None else result + bias


def gelu(x: np.ndarray) -> np.ndarray:
    return np.array([0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x.ravel().tolist()]).reshape(x.shape)


def linear(
    x: np.ndarray,
    weights: Weights | FloatWeights,
    *,
    bias: np.ndarray | None = None,
    residual: np.ndarray | None = None,
    norm_scale: np.ndarray | None = None,
    norm_bias: np.ndarray | None = None,
    gelu_too: bool = False,
) -> tuple[np.ndarray, np.ndarray]:
    """The product in float64, and the largest error that float32 sums in the order of the contract can have."""
    result, slack = (
        _product_of_floats(x, weights, norm_scale, norm_bias)
        if isinstance(weights, FloatWeights)
        else _product_of_codes(x, weights, norm_scale, norm_bias)
    )
    if bias is not None:
        result = result + bias
        slack = slack + EPSILON * np.abs(result)
    if gelu_too:
        # Its slope is at most 1.13; its own error: test_gelu in test_linear.py.
        slack = 1.13 * slack + GELU_ERROR * np.abs(result)
        result = gelu(result)
    if residual is not None:
        result = result + residual
        slack = slack + EPSILON * np.abs(result)
    return result, slack + 2.0**-126  # below that float32 has fewer bits


def _product_of_floats(
    x: np.ndarray, weights: FloatWeights, norm_scale: np.ndarray | None, norm_bias: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    values = weights.values()
    rows = x.astype(float) if norm_scale is None else layer_norm(x, norm_scale, norm_bias)
    # Each step of a chain rounds a sum that is at most that of all magnitudes.
    slack = values.shape[1] * EPSILON * (np.abs(rows) @ np.abs(values).T)
    if norm_scale is not None:
        slack = slack + NORM_ERROR * np.abs(rows).max(axis=-1, keepdims=True) * np.abs(values).sum(axis=-1)
    return rows @ values.T, slack


def _product_of_codes(
    x: np.ndarray, weights: Weights, norm_scale: np.ndarray | None, norm_bias: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    values = weights.values()
    if norm_scale is None:
        codes, scales = rounded_rows(x, weights.block_size)
        rounded = (codes * scales.astype(float)[..., None]).reshape(x.shape)
        slack = np.zeros((len(x), len(values)))
    else:
        # Where float32 normalizes a little differently, a code may be the next one: half a unit more or less.
        rounded = layer_norm(x, norm_scale, norm_bias)
        units = np.abs(rounded.reshape(len(x), -1, weights.block_size)).max(axis=-1) / 127
        slack = 0.51 * np.repeat(units, weights.block_size, axis=-1) @ np.abs(values).T
    result = rounded @ values.T
    # Of each block one term, rounded up to three times and then added; at 4 bits the sum is scaled once more. Dot
    # products are exact.
    num_blocks = values.shape[1] // weights.block_size
    in_blocks = rounded.reshape(len(x), num_blocks, -1)
    size = np.abs(np.einsum("rbk,nbk->rnb", in_blocks, values.reshape(len(values), num_blocks, -1))).sum(
        axis=-1
    )
    return result, slack + (2 * num_blocks + 4) * EPSILON * size


GELU_ERROR = 1.5e-7
"""Of x: 3e-8 of the polynomial, and four roundings (exponential, its half, 1 less that, times x) of up to 3e-8 each."""

NORM_ERROR = 16 * EPSILON
"""Of a row's largest magnitude: its mean and variance, sums of up to a few hundred numbers in eight lanes, and five
roundings of each value."""
