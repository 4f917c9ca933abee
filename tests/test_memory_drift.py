"""A process does not grow, whatever is asked of it. The long run: see memory_drift.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sabiyarn_edge.memory import process_memory, return_free_memory
from tests.export.models import export_tiny

MIB = 2**20

pytestmark = pytest.mark.skipif(not process_memory(), reason="the system does not tell a process's memory")


def test_calls_of_every_kind_leave_nothing_behind(tmp_path: Path) -> None:
    # 600 positions: capacities of 256, 512 and 600, so that scratch memory has many sizes.
    model = export_tiny(tmp_path, {"block_size": 600}, verify=False).folder
    command = [sys.executable, "-m", "tests.memory_drift", str(model), "--calls", "400"]
    output = subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent
    ).stdout
    found = json.loads(output)
    assert found["drift_bytes"] <= MIB, found


def test_free_memory_can_be_returned_at_any_time() -> None:
    return_free_memory()
    return_free_memory()
