"""This package, through its public methods."""

from __future__ import annotations

from pathlib import Path

import onnxruntime  # noqa: F401  (its time and memory are not the model's)

import sabiyarn_edge.generator  # noqa: F401
from benchmarks.engines import Facts
from sabiyarn_edge.bench.engine import Engine as OwnEngine


class Engine(OwnEngine):
    """The engine that `sabiyarn-edge bench` measures."""

    def __init__(self, path: Path, threads: int, positions: int) -> None:
        super().__init__(path, num_threads=threads, max_length=positions)

    def facts(self) -> Facts:  # type: ignore[override]
        own = super().facts()
        return Facts(
            weights=own["dtype"],
            excluded="",
            **{
                name: own[name]
                for name in (
                    "kv_cache_dtype",
                    "threads",
                    "vocab_size",
                    "weight_bytes_per_step",
                    "kv_bytes_per_position",
                )
            },
        )
