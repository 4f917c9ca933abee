"""The committed results: results/DEVICE_BENCHMARK.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["RESULTS", "Result", "devices", "load_others", "load_results"]

RESULTS = Path(__file__).parent / "results"

Result = dict[str, Any]


def devices(folder: Path = RESULTS) -> list[str]:
    """The devices that engines were compared on, the newest comparison first: DEVICE of results/DEVICE_engines.json."""
    suffix = "_engines.json"
    dated = [
        (_load(path)["machine"]["date"], path.name.removesuffix(suffix))
        for path in sorted(folder.glob(f"*{suffix}"))
    ]
    return [device for _, device in sorted(dated, key=lambda pair: pair[0], reverse=True)]


def load_results(device: str | None = None, folder: Path = RESULTS) -> dict[str, Result]:
    """Benchmark -> result, of one device (None: the newest): results/DEVICE_BENCHMARK.json."""
    device = devices(folder)[0] if device is None else device
    return {
        path.stem.removeprefix(f"{device}_"): _load(path) for path in sorted(folder.glob(f"{device}_*.json"))
    }


def load_others(folder: Path = RESULTS) -> dict[str, Result]:
    """Device -> its comparison of engines, of all devices but the newest."""
    return {device: _load(folder / f"{device}_engines.json") for device in devices(folder)[1:]}


def _load(path: Path) -> Result:
    result: Result = json.loads(path.read_text(encoding="utf-8"))
    return result
