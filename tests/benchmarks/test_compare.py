"""python -m benchmarks compare: which figures are worse, beyond their spread, and what it refuses."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest

compare = pytest.importorskip("benchmarks.compare", reason="needs a checkout")

RESULTS = Path(compare.__file__).parent / "results"


def samples(median: float, low: float, high: float) -> dict[str, float]:
    return {"median": median, "p10": low, "p90": high, "count": 32}


OLD: dict[str, Any] = {
    "benchmark": "engines",
    "machine": {"cpu": "A", "cpus": 2, "date": "2026-01-01"},
    "bandwidth": {"best": 1e10},
    "steps": 16,
    "engines": {
        "one": {"decode_ms": samples(10.0, 9.5, 10.5), "floor_ms": 8.0, "tokens_per_second": 100.0},
        "two": {"decode_ms": samples(10.0, 8.0, 14.0), "disk_bytes": 1000},
    },
    "curves": [{"rows": 1, "step_ms": 4.0}, {"rows": 8, "step_ms": 9.0}],
}


def changed(**values: Any) -> dict[str, Any]:
    """OLD with what stands at "engines/one/decode_ms" and the like replaced."""
    result = copy.deepcopy(OLD)
    for place, value in values.items():
        *path, last = place.split("/")
        part = result
        for key in path:
            part = part[int(key)] if isinstance(part, list) else part[key]
        part[last] = value
    return result


@pytest.mark.parametrize(
    ("place", "value", "worse"),
    [
        ("engines/one/decode_ms", samples(12.0, 11.0, 13.0), True),
        ("engines/one/decode_ms", samples(10.9, 10.8, 11.0), False),  # less than the share
        ("engines/one/decode_ms", samples(5.0, 4.0, 6.0), False),  # better
        ("engines/two/decode_ms", samples(12.0, 11.0, 13.0), False),  # inside the old one's spread
        ("engines/one/decode_ms", samples(12.0, 9.0, 13.0), False),  # whose own spread holds the old median
        ("engines/one/tokens_per_second", 80.0, True),
        ("engines/one/tokens_per_second", 95.0, False),
        ("engines/one/tokens_per_second", 200.0, False),
        ("engines/two/disk_bytes", 1200, True),
        ("curves/1/step_ms", 10.0, True),
        ("engines/one/floor_ms", 80.0, False),  # of the machine
        ("bandwidth/best", 1.0, False),
        ("steps", 32, False),  # a setting
    ],
)
def test_what_is_worse(place: str, value: Any, worse: bool) -> None:
    lines, count = compare.compared(OLD, changed(**{place: value}), 0.1)
    assert count == int(worse)
    assert sum(line.endswith("worse") for line in lines) == count
    assert lines[-1] == f"{count} of 6 figures are worse by more than 10%."


def test_every_figure_is_printed_with_its_ratio() -> None:
    lines, _ = compare.compared(OLD, changed(**{"curves/1/step_ms": 18.0, "steps": 8}), 0.1)
    text = "\n".join(" ".join(line.split()) for line in lines)
    assert "engines / one / decode_ms 10 10 1.000" in text
    assert "curves / rows 8 / step_ms 9 18 2.000 worse" in text
    assert "steps: 16 -> 8" in text  # figures of other settings
    assert "floor_ms" not in text and "differ:" in text


def test_other_machines_and_what_one_result_lacks_are_said() -> None:
    new = changed(machine={"cpu": "B", "cpus": 4, "date": "2026-01-02"})
    del new["engines"]["two"]
    new["engines"]["three"] = {"load_seconds": 1.0}
    text = "\n".join(compare.compared(OLD, new, 0.1)[0])
    assert "The machines differ" in text and "A, 2 CPUs, 2026-01-01" in text and "B, 4 CPUs" in text
    assert "Only in the old result:\n  engines / two / decode_ms" in text
    assert "Only in the new result:\n  engines / three / load_seconds" in text


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_committed_result_has_figures_and_is_not_worse_than_itself(path: Path) -> None:
    result = compare.load(path)
    _, worse = compare.compared(result, result, 0.0)
    assert worse == 0
    figures = [figure for figure in compare.figures(result).values() if figure.less_is_better is not None]
    assert figures


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["compare", *map(str, arguments)])
    return int(compare.main())


def test_the_exit_code_says_whether_anything_is_worse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(OLD), encoding="utf-8")
    new.write_text(json.dumps(changed(**{"curves/1/step_ms": 10.5})), encoding="utf-8")
    assert run(monkeypatch, old, new) == 1
    assert run(monkeypatch, new, old) == 0
    assert run(monkeypatch, old, new, "--share", "20") == 0
    assert "figures are worse by more than 20%." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read "),
        (b"{", " is not JSON: "),
        (b"\xff", " is not JSON: "),
        (b"[1, 2]", ' is no result: it has no "benchmark"'),
        (b'{"benchmark": "batch"}', "the first is a result of the benchmark engines, the second of batch."),
    ],
)
def test_what_is_no_result_of_the_same_benchmark_is_refused(
    content: bytes | None,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old, new = tmp_path / "old.json", tmp_path / "new.json"
    old.write_text(json.dumps(OLD), encoding="utf-8")
    if content is not None:
        new.write_bytes(content)
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, old, new)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("share", ["-1", "nan", "much"])
def test_a_share_that_is_none_is_refused(
    share: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        run(monkeypatch, "a", "b", "--share", share)
    assert "is not a number of at least 0" in capsys.readouterr().err
