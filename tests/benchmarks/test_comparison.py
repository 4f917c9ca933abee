"""The comparison of engines, with a model small enough for a test and engines that are always there."""

from __future__ import annotations

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
             "--lengths", "16", "128", "4000", "--rounds", "2", "--loads", "1", "--steps", "3", "--threads", "1",
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


def test_both_read_the_same_weights(result: dict) -> None:
    ours, plain = (result["engines"][name] for name in (OURS, PLAIN))
    # But for zero points, which ours have not at 8 bits, and rows that fill the last tile up.
    assert ours["weight_bytes_per_step"] == pytest.approx(plain["weight_bytes_per_step"], rel=0.03)
    assert ours["kv_bytes_per_position"] == plain["kv_bytes_per_position"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--lengths", "4000"], "do not fit the model's 1024 positions"),
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
