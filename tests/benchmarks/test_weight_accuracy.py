"""Sizes that are computed without an export, against plain arithmetic and against an export."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("onnx")

from benchmarks.weight_accuracy import VARIANTS, full_size_mib

BLOCK_WEIGHTS = 12 * 768 * 768
TABLE, POSITIONS = 52050 * 768, 1024 * 768


@pytest.mark.parametrize(
    ("options", "bits"),
    [
        ({"dtype": "float32"}, 32 * (12 * BLOCK_WEIGHTS + TABLE + POSITIONS)),
        ({"dtype": "int8"}, (8 + 32 / 128) * (12 * BLOCK_WEIGHTS + TABLE + POSITIONS)),
        ({"dtype": "int4", "keep_int8": []}, (4 + 8 / 16) * (12 * BLOCK_WEIGHTS + TABLE + POSITIONS)),
        (
            {"dtype": "int4"},
            (4 + 64 / 128) * 11 * BLOCK_WEIGHTS + (8 + 32 / 128) * (BLOCK_WEIGHTS + TABLE + POSITIONS),
        ),
        (
            {"dtype": "int4", "keep_int8": ["lm_head"], "weight_block_size": 32},
            (4 + 8 / 16) * (12 * BLOCK_WEIGHTS + POSITIONS) + (8 + 32 / 32) * TABLE,
        ),
    ],
)
def test_size_of_the_full_shape(options: dict[str, Any], bits: float) -> None:
    # Padding between tensors takes up to 64 KiB each.
    assert full_size_mib(options) * 2**20 == pytest.approx(bits / 8, rel=0.03)


def test_options_are_those_of_the_export() -> None:
    assert {"float32", "float16", "int8", "int4"} <= VARIANTS.keys()
    sizes = [full_size_mib(VARIANTS[name]) for name in ("float32", "float16", "int8", "int4")]
    assert sizes == sorted(sizes, reverse=True)
