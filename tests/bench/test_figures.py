"""What is computed from timings and sizes."""

from __future__ import annotations

import numpy as np
import pytest

from sabiyarn_edge.bench import bandwidth
from sabiyarn_edge.bench.bandwidth import read_bandwidth
from sabiyarn_edge.bench.footprint import footprint, forget_peak
from sabiyarn_edge.bench.statistics import summary
from sabiyarn_edge.bench.traffic import weight_bytes_per_step
from sabiyarn_edge.bench.trial import Trial, summarize
from sabiyarn_edge.model_folder.config import ModelConfig
from sabiyarn_edge.system.available_memory import AvailableMemory
from tests.export.models import SHAPES, export_tiny

SHAPE = SHAPES["wide"]  # matrices large enough to stand in weights.bin
MATRIX_ELEMENTS = (
    1009 * 128 + 12 * 128 * 128
)  # lm_head (tied), and c_attn, c_proj, c_fc, c_proj of its one layer


def test_summary_is_numpys():
    values = [5.0, 1.0, 9.0, 2.0, 7.0, 30.0]
    p10, median, p90 = np.percentile(values, [10, 50, 90])
    assert summary(values) == pytest.approx({"median": median, "p10": p10, "p90": p90, "count": 6})


def test_summary_of_one_value():
    assert summary([3.0]) == {"median": 3.0, "p10": 3.0, "p90": 3.0, "count": 1}


def test_a_trials_figures():
    trials = [
        Trial(prompt_tokens=100, first_token_seconds=2.0, step_seconds=[0.010, 0.020], cpu_seconds=0.05),
        Trial(prompt_tokens=100, first_token_seconds=4.0, step_seconds=[0.030, 0.020], cpu_seconds=0.11),
    ]
    figures = summarize(trials, weight_bytes=900_000, kv_bytes=1000, bandwidth=1e8)
    assert figures["decode_ms"]["median"] == pytest.approx(20)
    assert figures["first_token_ms"]["median"] == pytest.approx(3000)
    assert figures["prefill_tokens_per_second"] == pytest.approx(100 / 3)
    assert figures["cpu_seconds_per_100_tokens"] == pytest.approx(100 * 0.16 / 4)
    assert figures["floor_ms"] == pytest.approx(1e3 * (900_000 + 101 * 1000) / 1e8)  # 101 past in the middle
    assert figures["fraction_of_bandwidth"] == pytest.approx(figures["floor_ms"] / 20)


@pytest.mark.parametrize(
    ("dtype", "bytes_per_weight"),
    [
        ("float32", 4),
        ("float16", 2),
        ("int8", 1),
    ],
)
def test_a_step_reads_every_matrix_once_but_not_the_position_table(tmp_path, dtype, bytes_per_weight):
    exported = export_tiny(tmp_path, SHAPE, dtype=dtype)
    # What makes the difference: vectors, and the scales of int8 blocks, some too small to stand in weights.bin.
    assert weight_bytes_per_step(exported.folder) == pytest.approx(
        MATRIX_ELEMENTS * bytes_per_weight, rel=0.04
    )


def test_kv_bytes_are_those_of_the_cache(text_model):
    from sabiyarn_edge import EdgeGenerator

    usage = EdgeGenerator.from_pretrained(text_model).memory_usage()
    assert ModelConfig.load(text_model).kv_bytes_per_token == usage["kv_bytes_per_position"]


def test_bandwidth_is_measured_within_the_control_groups_limit(monkeypatch):
    gib, mib = 2**30, 2**20
    memory = AvailableMemory(
        total=8 * gib, available=6 * gib, swap=0, free_swap=0, group_limit=300 * mib, group_left=8 * mib
    )
    monkeypatch.setattr(AvailableMemory, "read", lambda: memory)
    read: list[int] = []
    monkeypatch.setattr(bandwidth, "exclusive_or", lambda words: read.append(words.nbytes))
    read_bandwidth(2, passes=1)
    assert sum(read) == 2 * mib  # a quarter of 8


def test_bandwidth_has_a_rate_for_each_pass():
    rates = read_bandwidth(2, passes=3, buffer_bytes=2**20)
    assert len(rates) == 3
    assert all(
        1e6 < rate < 1e13 for rate in rates
    )  # bytes per second: faster than a floppy, slower than any CPU


@pytest.mark.skipif("anonymous" not in footprint(), reason="needs /proc")
def test_the_footprint_sees_memory_come_and_go():
    forget_peak()
    before = footprint()
    block = np.ones(32 * 2**20, np.uint8)
    held = footprint()
    del block
    after = footprint()
    assert held["anonymous"] - before["anonymous"] > 30 * 2**20
    assert after["anonymous"] < held["anonymous"] - 30 * 2**20
    assert after["peak"] >= held["anonymous"]
