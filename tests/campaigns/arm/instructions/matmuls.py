"""Counts the instructions of a matmul with weights of each format, on each emulated CPU.

    python -m tests.campaigns.arm.instructions.matmuls [--result FILE]

One linear layer of 768 inputs and 3072 outputs, as the export writes it, for one token and for 16. Needs the board of
`python -m tests.campaigns.arm` (its Python and its onnxruntime run here), and what counting the core's loops needs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from sabiyarn_edge.engine.operators import LIBRARY
from sabiyarn_edge.export.graph_builder import GraphBuilder
from sabiyarn_edge.export.weight_format import Matrix
from sabiyarn_edge.export.weight_formats import WeightOptions, make_weight_format
from sabiyarn_edge.model_folder.config import GPTJXConfig
from tests.campaigns.arm.__main__ import default_cache, versions_on
from tests.campaigns.arm.board import Board
from tests.campaigns.arm.cpus import CPUS
from tests.campaigns.arm.instructions.__main__ import HERE, call, has_tools
from tests.export.models import product_model

OUTPUTS, INPUTS = 3072, 768
KINDS = ("float32", "int8", "int4")
TOKENS = (1, 16)
RUNS = (2, 12)
"""The difference of the two counts is ten runs: loading and the allocations of the first run cancel."""

GUEST = """
import sys
import numpy, onnxruntime
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
options.register_custom_ops_library(sys.argv[4])
session = onnxruntime.InferenceSession(sys.argv[1], options)
x = numpy.random.default_rng(0).standard_normal((1, int(sys.argv[2]), 768), dtype=numpy.float32)
for _ in range(int(sys.argv[3])):
    session.run(None, {"x": x})
"""


def write_model(kind: str, path: Path) -> None:
    """Write the layer with random weights of this format."""
    weights = np.random.default_rng(0).standard_normal((OUTPUTS, INPUTS), dtype=np.float32)
    options = WeightOptions(
        dtype=kind,
        rounding="nearest" if kind == "int4" else None,
        keep_int8=() if kind == "int4" else None,
    )
    form = make_weight_format(options, GPTJXConfig())

    def emit(graph: GraphBuilder, x: str, matrix: Matrix) -> str:
        return form.linear(graph, x, matrix, None, "product")

    path.write_bytes(product_model(emit, weights))


def count(board: Board, plugin: Path, cpu: str, model: Path, tokens: int) -> float:
    """Return the instructions per weight and token."""
    environment = {
        **os.environ,
        "PYTHONHOME": str(board.root / "usr"),
        "PYTHONPATH": str(board.site_packages),
        "OPENBLAS_NUM_THREADS": "1",  # the plugin counts one thread
        "ORT_DISABLE_TELEMETRY": "1",
    }
    python = board.root / f"usr/bin/python{board.python_version}"
    command = ["qemu-aarch64", "-L", str(board.root), "-cpu", cpu, "-plugin", str(plugin), str(python)]
    library = board.site_packages / "sabiyarn_edge" / LIBRARY.name
    found = []
    for runs in RUNS:
        done = subprocess.run(
            [*command, "-c", GUEST, str(model), str(tokens), str(runs), str(library)],
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise SystemExit(f"the emulated Python failed on {model.name}:\n{done.stderr[-2000:]}")
        found.append(int(done.stderr.rsplit("instructions:", 1)[1].split()[0]))
    return (found[1] - found[0]) / (RUNS[1] - RUNS[0]) / OUTPUTS / INPUTS / tokens


def measure(board: Board) -> dict[str, Any]:
    """Return all counts, with a description and versions."""
    counts: dict[str, dict[str, dict[str, float]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        plugin = folder / "plugin.so"
        call(["gcc", "-O2", "-shared", "-fPIC", str(HERE / "plugin.c"), "-o", str(plugin)])
        for kind in KINDS:
            write_model(kind, folder / f"{kind}.onnx")
            counts[kind] = {
                cpu: {
                    f"tokens: {tokens}": round(count(board, plugin, cpu, folder / f"{kind}.onnx", tokens), 3)
                    for tokens in TOKENS
                }
                for cpu in CPUS
            }
    return {
        "what": f"instructions per weight and token of a layer of {INPUTS} inputs and {OUTPUTS} outputs",
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions_on(board),
        "counts": counts,
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.arm.instructions.matmuls", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument(
        "--cache", type=Path, default=default_cache(), help="cache folder of python -m tests.campaigns.arm"
    )
    parser.add_argument("--release", default="bookworm", help="which board (default bookworm)")
    parser.add_argument("--result", type=Path, help="JSON file to write the counts to")
    options = parser.parse_args()
    board = Board(options.cache / options.release, options.release)
    if not (board.site_packages / "onnxruntime").is_dir():
        print(f"there is no board in {board.root}. Run: python -m tests.campaigns.arm", file=sys.stderr)
        return 2
    if not has_tools():
        return 2
    text = json.dumps(measure(board), indent=2) + "\n"
    if options.result is not None:
        options.result.write_text(text, encoding="utf-8")
    print(text, end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
