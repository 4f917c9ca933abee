"""Products with int8 and int4 weights, on one core, as a share of what the CPU's dot product instructions can do.

    peak      the set's instructions on registers alone, without loads, scales or stores
    product   a layer of 768 inputs and 768 outputs, rounding of the inputs included, weights in the nearest caches

Both take turns; what is given is the best of the rounds and the median of the shares. For every instruction set of this
CPU that has such instructions. Four bits need more of them: for a lookup, and for a scale of each 16 inputs.
"""

from __future__ import annotations

import argparse
import sys
import time
from statistics import median
from typing import Any

import numpy as np

from benchmarks.arguments import count, out_file
from benchmarks.output import put_out
from sabiyarn_edge import _core_testing
from sabiyarn_edge._core import linear_kernels
from sabiyarn_edge.bench.machine import describe_machine

WIDTH, BLOCK = 768, 128
TYPES = {"int8": WIDTH * (WIDTH + WIDTH // BLOCK * 4), "int4": WIDTH * (WIDTH // 2 + WIDTH // 16 + 4)}
"""Type of weights -> bytes of the matrix (csrc/core/kernels/tiled_matrix.hpp)."""


def measure(kernels: str, weight_type: str, rows: int, rounds: int) -> dict[str, float]:
    """Products per second of the instructions and of a product with so many rows, and their ratio."""
    x = np.random.default_rng(rows).standard_normal((rows, WIDTH), np.float32)
    weights = np.zeros(TYPES[weight_type], np.uint8)
    repeats = max(256 // rows, 1)
    peaks, products = [], []
    for _ in range(rounds):
        peaks.append(_core_testing.dot_product_peak(kernels))
        started = time.perf_counter()
        for _ in range(repeats):
            _core_testing.linear(
                x, weights, outputs=WIDTH, weight_type=weight_type, block_size=BLOCK, kernels=kernels
            )
        products.append(repeats * rows * WIDTH**2 / (time.perf_counter() - started))
    return {
        "peak_per_second": max(peaks),
        "products_per_second": max(products),
        "share_of_peak": round(
            median(product / peak for product, peak in zip(products, peaks, strict=True)), 3
        ),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=count, nargs="+", default=[1, 5, 16, 240], help="tokens at once")
    parser.add_argument("--rounds", type=count, default=21)
    parser.add_argument("--out", type=out_file, help="write the result there too, as JSON")
    arguments = parser.parse_args()
    results: dict[str, Any] = {
        kernels: {
            weight_type: {
                rows: measure(kernels, weight_type, rows, arguments.rounds) for rows in arguments.rows
            }
            for weight_type in TYPES
        }
        for kernels in linear_kernels()
        if kernels != "plain"
    }
    put_out({"benchmark": "matmul", "machine": describe_machine(), "results": results}, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
