"""The curves, with a model small enough for a test."""

from __future__ import annotations

import json

import pytest

growth = pytest.importorskip(
    "benchmarks.growth", reason="needs a checkout, torch and onnx", exc_type=ImportError
)


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict:
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("growth")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "sys.argv",
            ["growth", "--work", str(folder), "--shape", "small", "--dtypes", "int8", "--lengths", "64", "512", "9999",
             "--rows", "1", "3", "--rounds", "2", "--threads", "1", "--out", str(folder / "out.json")],
        )  # fmt: skip
        assert growth.main() == 0
    return json.loads((folder / "out.json").read_text(encoding="utf-8"))


def test_a_past_is_as_long_as_it_says(result: dict) -> None:
    points = result["curves"]["int8"]["decode"]
    assert [point["past"] for point in points] == [64, 512, 1024 - growth.STEPS - 2]
    for point in points:
        assert point["step_ms"]["count"] == 2 * growth.STEPS
        # Two layers of float16 keys and values, 256 wide; the capacity is the next power of two, at least 256.
        needed = 2 * 2 * 256 * 2 * point["past"]
        assert needed <= point["kv_cache_bytes"] <= max(2 * needed, 2 * 2 * 256 * 2 * 256)


def test_rows_share_a_step(result: dict) -> None:
    points = result["curves"]["int8"]["batch"]
    assert [point["rows"] for point in points] == [1, 3]
    assert points[1]["kv_cache_bytes"] == 3 * points[0]["kv_cache_bytes"]


def test_prompts_are_computed_whole(result: dict) -> None:
    points = result["curves"]["int8"]["prefill"]
    assert [point["length"] for point in points] == [64, 512, 1021]
    for point in points:
        assert point["tokens_per_second"] == pytest.approx(point["length"] / point["seconds"])
    assert result["prefill_lengths_without_time"] == []
