"""Every CPU chooses the tokens of golden_tokens.json; int8 logits stay near the oracle's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.arm.golden import BY_ORACLE, CASES, GOLDEN, SHAPE, by_oracle, generate, golden_model
from tests.export.models import Exported, FeedingLoop

BOUNDS = {"float32": 5e-5, "int8": 0.25}
"""Largest distance of a logit (standard deviation about 2.5) from the float64 oracle over the same stored weights.
float32: sums in another order. int8: onnxruntime rounds activations to 8 bits as well (accuracy level 4)."""


@pytest.fixture(scope="module")
def tokens() -> dict[str, list[list[int]]]:
    golden: dict[str, list[list[int]]] = json.loads(GOLDEN.read_text(encoding="utf-8"))["tokens"]
    return golden


@pytest.fixture(scope="module", params=BOUNDS)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return golden_model(tmp_path_factory.mktemp("golden"), str(request.param))


@pytest.fixture(scope="module")
def float32_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return golden_model(tmp_path_factory.mktemp("golden")).folder


def test_every_case_has_its_tokens(tokens: dict[str, list[list[int]]]) -> None:
    assert tokens.keys() == CASES.keys()
    assert (
        len({tuple(row) for rows in tokens.values() for row in rows}) > 15
    )  # they do not repeat one another


@pytest.mark.parametrize("name", CASES)
def test_float32_tokens_are_identical(
    float32_folder: Path, tokens: dict[str, list[list[int]]], name: str
) -> None:
    assert generate(float32_folder, name) == tokens[name]


def test_the_oracle_gives_the_greedy_tokens(tmp_path: Path, tokens: dict[str, list[list[int]]]) -> None:
    assert by_oracle(golden_model(tmp_path), BY_ORACLE[0]) == tokens[BY_ORACLE[0]]


def test_logits_are_near_the_oracles(exported: Exported) -> None:
    ids = np.random.default_rng(1).integers(0, SHAPE["vocab_size"], (1, 48))
    loop = FeedingLoop(exported, rows=1, capacity=64)
    found = np.concatenate(
        [loop.feed(ids[:, :40]), *(loop.feed(ids[:, i : i + 1]) for i in range(40, 48))], axis=1
    )
    distance = float(np.abs(found[0] - exported.oracle().logits(ids[0])).max())
    print(f"{exported.report.dtype}: largest distance {distance:.2g}")
    assert distance < BOUNDS[exported.report.dtype]
