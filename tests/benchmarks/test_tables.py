"""Tables of the comparison: rows, engines that are missing, and other CPUs. The figures are made up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

committed = pytest.importorskip("benchmarks.committed", reason="needs a checkout")
tables = pytest.importorskip("benchmarks.tables", reason="needs a checkout")


def samples(median: float) -> dict[str, float]:
    return {"median": median, "p10": median - 1, "p90": median + 2, "count": 8}


def engine(step_ms: float, **more: Any) -> dict[str, Any]:
    figures = {
        "decode_ms": samples(step_ms),
        "first_token_ms": samples(100.0),
        "prefill_tokens_per_second": 1280.0,
        "cpu_seconds_per_100_tokens": 2.0,
        "fraction_of_bandwidth": 0.5,
    }
    memory = {"anonymous": 2**20, "mapped": 0, "shared": 0, "peak": 2**21}
    return {
        "weights": "int8",
        "kv_cache_dtype": "float16",
        "excluded": "",
        "lengths": {"128": figures, "1024": figures},
        "disk_bytes": 2**20,
        "import_seconds": samples(3.0),
        "load_seconds": samples(3.0),
        "memory": dict.fromkeys(("imported", "loaded", "after_256_tokens", "after_prompt_of_1024"), memory),
        **more,
    }


def rows(*steps_ms: float) -> dict[str, Any]:
    counts = (1, 8)
    return {
        str(count): {
            "step_ms": samples(step),
            "tokens_per_second": 1e3 * count / step,
            "cpu_seconds_per_100_tokens": 0.25,
        }
        for count, step in zip(counts, steps_ms, strict=True)
    }


def result(date: str = "2026-01-01", cpu: str = "A") -> dict[str, Any]:
    return {
        "benchmark": "engines",
        "machine": {"cpu": cpu, "cpus": 2, "date": date, "versions": {"numpy": "1"}},
        "model": {"n_layer": 1, "n_embd": 2, "vocab_size": 3},
        "threads": 2,
        "row_prompt_tokens": 128,
        "bandwidth": {"best": 1e10},
        "excluded": "nothing",
        "skipped": {"llama.cpp F32": "ended by SIGILL", "transformers float32": "not installed: torch"},
        "engines": {
            "sabiyarn_edge int8": engine(8.0, rows=rows(8.0, 16.0)),
            "llama.cpp Q8_0": engine(12.0, rows=rows(12.0, 48.0), build="AVX2, FMA"),
            "another": engine(20.0),
        },
    }


@pytest.fixture
def blocks(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    monkeypatch.setattr("benchmarks.table_parts.devices", lambda: ["a"])
    found: dict[str, str] = tables.blocks({"engines": result()})
    return found


def test_rows_stand_beside_one_row_with_their_cpu_seconds(blocks: dict[str, str]) -> None:
    table = blocks["engines-rows"]
    assert "| **sabiyarn_edge int8** | 8 | 16.0 | 15.0 - 18.0 | 500 | 4.0 | 0.25 |" in table
    assert "| llama.cpp Q8_0 | 8 | 48.0 | 47.0 - 50.0 | 167 | 2.0 | 0.25 |" in table
    assert "Not with several rows: another." in table


@pytest.mark.parametrize("block", ["engines", "engines-speed", "engines-rows"])
def test_an_engine_that_is_missing_stands_in_the_table_with_its_reason(
    block: str, blocks: dict[str, str]
) -> None:
    lines = blocks[block].splitlines()
    head = next(line for line in lines if line.startswith("| engine"))
    for name, reason in result()["skipped"].items():
        [row] = [line for line in lines if line.startswith(f"| {name} ")]
        assert reason in row
        assert row.count("|") == head.count("|")


def test_the_front_page_says_why_it_has_no_figures_of_llama_cpp() -> None:
    without = result()
    del without["engines"]["llama.cpp Q8_0"]
    without["skipped"]["llama.cpp Q8_0"] = "ended by SIGILL"
    text = tables.blocks({"engines": without})["engines-numbers"]
    assert text == "No figures: llama.cpp Q8_0 was not measured (ended by SIGILL)."


def test_what_an_engine_was_built_for_is_said(blocks: dict[str, str]) -> None:
    assert "- built with AVX2, FMA: llama.cpp Q8_0" in blocks["engines-differences"]


def test_the_newest_device_is_shown_and_the_others_are_linked(tmp_path: Path) -> None:
    for device, date in (("old", "2026-01-01"), ("new", "2026-03-01"), ("middle", "2026-02-01")):
        file = tmp_path / f"{device}_engines.json"
        file.write_text(json.dumps(result(date, device.upper())), encoding="utf-8")
    (tmp_path / "new_another.json").write_text("{}", encoding="utf-8")
    (tmp_path / "old_growth.json").write_text("{}", encoding="utf-8")
    assert committed.devices(tmp_path) == ["new", "middle", "old"]
    shown = committed.load_results(folder=tmp_path)
    assert sorted(shown) == ["another", "engines"] and shown["engines"]["machine"]["cpu"] == "NEW"
    others = committed.load_others(tmp_path)
    assert list(others) == ["middle", "old"]
    table = tables.blocks(shown, others)["engines-cpus"]
    assert "| MIDDLE, 2 CPUs, 2 threads, 2026-02-01 | 8.0 | 12.0 | 1280 | 1280 |" in table
    assert "[old_engines.json](results/old_engines.json)" in table
