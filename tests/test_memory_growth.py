"""What a process takes for keys, values and masks, as the system tells it and to the byte."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.system.process_memory import process_memory
from tests.device import EMULATED
from tests.export.models import export_tiny

MIB = 2**20

GROW = """
import json, re, sys
from pathlib import Path
import numpy as np
from sabiyarn_edge._core import KvCache

def resident(field):
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"^{field}:\\s+(\\d+)", status, re.MULTILINE)[1])

rows = int(sys.argv[1])
cache = KvCache(num_layers=6, num_heads=4, head_dim=64, dtype="float32", window=8192, min_capacity=2048)
cache.resize(rows)
cache.reserve(2048)
if rows > 1:  # beams of a prompt of 1024 tokens, whose pages they share
    cache.begin_append(0, 1024)
    for layer in range(6):
        cache.buffer(layer, "key")[0, :, :1024 // 16] = 1  # in tiles of 16 positions
        cache.buffer(layer, "value")[0, :, :1024] = 1
    cache.fork(0, list(range(1, rows)), 1024)
for row in range(rows):
    first = cache.next_position(row)
    cache.begin_append(row, 2048 - first)
    for layer in range(6):
        cache.buffer(layer, "key")[row, :, first // 16:2048 // 16] = row
        cache.buffer(layer, "value")[row, :, first:2048] = row
old, before = cache.nbytes // 12, resident("VmRSS")
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
cache.begin_append(0, 1)
print(json.dumps({"before": before, "peak": resident("VmHWM"), "final": resident("VmRSS"),
                  "old_buffer": old, "grown": cache.capacity}))
"""


@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="the system does not tell a process's peak"
)
@pytest.mark.parametrize("rows", [1, 3])
def test_growth_takes_one_layers_buffer_more_at_most(rows: int) -> None:
    """Of 12 buffers that double, one is there twice at a time: its old one, 2 MiB a row, beside the new one. Pages that
    rows share count less in the new ones, which nobody has read yet."""
    output = subprocess.run(
        [sys.executable, "-c", GROW, str(rows)], check=True, capture_output=True, text=True
    ).stdout
    found = json.loads(output)
    assert found["grown"] == 4096
    assert found["old_buffer"] == rows * 2 * MIB
    # 0.5 MiB: the kernel counts pages per CPU and adds them up now and then.
    assert found["peak"] - max(found["before"], found["final"]) <= found["old_buffer"] + MIB // 2, found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_tiny(tmp_path_factory.mktemp("model"), {"block_size": 1500}, verify=False).folder


def test_a_loaded_model_has_neither_keys_nor_values_nor_masks(folder: Path) -> None:
    usage = EdgeGenerator.from_pretrained(folder, num_threads=1).memory_usage()
    names = ("kv_cache", "prefix_cache", "step_buffers", "mask_buffer", "mask_cache")
    assert [usage[name] for name in names] == [0] * 5


@pytest.mark.parametrize(
    ("window", "capacities"),
    [
        (
            None,
            {256: 256, 257: 512, 513: 1024, 1025: 1536, 1500: 1536},
        ),  # 1500 and 832: up to whole tiles of 64
        (
            700,
            {256: 256, 257: 512, 513: 832, 1500: 832},
        ),  # 128 positions more than the window, to run together
    ],
)
def test_keys_and_values_take_what_the_formula_says_at_every_growth(
    folder: Path, window: int | None, capacities: dict[int, int]
) -> None:
    """A call that needs so many positions lays out so much at once, and keeps it for the next."""
    generator = EdgeGenerator.from_pretrained(folder, num_threads=1, kv_window=window)
    shape = generator.config.gptjx
    per_position = 2 * shape.n_layer * shape.n_embd * 2  # key and value, float16
    before = process_memory().get("process_anonymous", 0)
    for positions, capacity in capacities.items():
        generator.generate([1] * (positions - 3), max_new_tokens=3, eos_token_id=None)
        usage = generator.memory_usage()
        assert usage["kv_cache"] == capacity * per_position
        assert usage["mask_cache"] == usage["mask_buffer"] == 0
    # What the system says: the formula, and 1 MiB for logits, scratch memory and Python.
    if not EMULATED:
        grown = process_memory().get("process_anonymous", 0) - before
        assert grown <= max(capacities.values()) * per_position + MIB
