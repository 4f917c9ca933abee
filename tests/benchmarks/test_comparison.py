"""The comparison of engines, with a model small enough for a test and engines that are always there."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

comparison = pytest.importorskip(
    "benchmarks.comparison", reason="needs a checkout, torch and onnx", exc_type=ImportError
)

OURS, PLAIN = "sabiyarn_edge int8", "onnxruntime, concatenating int8"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """A short run of two engines, with a third that is not installed."""
    folder = tmp_path_factory.mktemp("engines")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(comparison.PACKAGES, "llama_cpp", ("a_package_that_nobody_has",))
        patch.setattr(
            "sys.argv",
            ["engines", "--work", str(folder / "work"), "--shape", "small", "--only", OURS, PLAIN, "Q8_0",
             "--lengths", "16", "128", "4000", "--rounds", "2", "--rows", "4", "1",
             "--loads", "1", "--steps", "3", "--threads", "1",
             "--out", str(folder / "out.json")],
        )  # fmt: skip
        assert comparison.main() == 0
    return json.loads((folder / "out.json").read_text(encoding="utf-8"))


def test_engines_that_are_not_installed_are_named(result: dict) -> None:
    assert result["skipped"] == {"llama.cpp Q8_0": "not installed: a_package_that_nobody_has"}
    assert list(result["engines"]) == [OURS, PLAIN]


def test_every_engine_has_every_figure(result: dict) -> None:
    for engine in result["engines"].values():
        assert list(engine["lengths"]) == ["16", "128"]  # 4000 exceed the small model's positions
        for figures in engine["lengths"].values():
            assert figures["decode_ms"]["count"] == 2 * 3  # rounds, steps
            assert figures["decode_ms"]["median"] > 0
            assert figures["floor_ms"] > 0
        assert engine["threads"] == 1
        assert engine["load_seconds"]["median"] > 0
        assert engine["memory"]["after_256_tokens"]["peak"] >= engine["memory"]["imported"]["anonymous"]
    assert result["engines"][OURS]["beams"]["step_ms"]["median"] > 0
    assert "beams" not in result["engines"][PLAIN]


def test_rows_are_measured_where_an_engine_has_them(result: dict) -> None:
    assert "rows" not in result["engines"][PLAIN]
    rows = result["engines"][OURS]["rows"]
    assert list(rows) == ["1", "4"]
    for count, figures in rows.items():
        assert figures["step_ms"]["count"] == 2 * 3  # rounds, steps
        assert figures["tokens_per_second"] == pytest.approx(1e3 * int(count) / figures["step_ms"]["median"])
        assert figures["cpu_seconds_per_100_tokens"] > 0


def test_rows_count_the_tokens_of_all() -> None:
    trial = comparison.Trial(
        prompt_tokens=128, first_token_seconds=1.0, step_seconds=[0.1, 0.3], cpu_seconds=0.8
    )
    figures = comparison.summarize_rows(8, [trial, trial])
    assert figures["tokens_per_second"] == pytest.approx(8 / 0.2)
    assert figures["cpu_seconds_per_100_tokens"] == pytest.approx(100 * 1.6 / (8 * 4))


def test_an_engine_whose_model_cannot_be_made_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(work: Path, shape: str) -> Path:
        raise RuntimeError("the converter refuses\nthe details")

    broken = comparison.EngineSpec("broken", "sabiyarn", fail)
    monkeypatch.setattr(comparison, "ENGINES", (broken,))
    run = comparison.Run(argparse.Namespace(work=tmp_path, shape="small", threads=1, only=None))
    run.prepare()
    assert run.skipped == {"broken": "its model could not be made: the converter refuses"}


def test_both_read_the_same_weights(result: dict) -> None:
    ours, plain = (result["engines"][name] for name in (OURS, PLAIN))
    # But for zero points, which ours have not at 8 bits, and rows that fill the last tile up.
    assert ours["weight_bytes_per_step"] == pytest.approx(plain["weight_bytes_per_step"], rel=0.03)
    assert ours["kv_bytes_per_position"] == plain["kv_bytes_per_position"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lengths", "4000"], "do not fit the model's 1024 positions"),
        (["--lengths", "16", "--steps", "1000"], "128 tokens and 1000 more do not fit 1024 positions"),
        (["--rows", "0"], "'0' is not an integer of at least 1"),
        (["--lengths", "0"], "'0' is not an integer of at least 1"),
        (["--only", "nobody"], "--only nobody: no engine is called so. There are: sabiyarn_edge float32, "),
        (["--out", "absent/out.json"], "there is no folder absent"),
    ],
)
def test_what_cannot_be_measured_is_refused_at_once(
    options: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        "sys.argv", ["engines", "--work", str(tmp_path / "work"), "--shape", "small", *options]
    )
    with pytest.raises(SystemExit, match="2"):
        comparison.main()
    assert message in capsys.readouterr().err
    assert not (tmp_path / "work").exists()
