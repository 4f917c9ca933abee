"""sabiyarn-edge info: what a model folder holds and what it needs."""

from __future__ import annotations

import argparse
import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import __version__
from ..config import ModelConfig
from ..errors import ModelFolderError
from ..weights_file import WeightsHeader
from .parser import Parser

__all__ = ["add_to", "describe", "run"]

MIB = 1024 * 1024


def add_to(commands: argparse._SubParsersAction[Parser]) -> None:
    """Add this command to the parser."""
    parser = commands.add_parser(
        "info",
        help="show a model folder's shape, sizes and memory",
        description="Shows what a model folder holds and what it needs, without loading it.",
    )
    parser.set_defaults(run=run, parser=parser)
    parser.add_argument("model", metavar="MODEL", help="model folder, or the name of a bundled model (nano)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> None:
    """Run the command."""
    from ..generator import find_model

    facts = describe(find_model(arguments.model))
    print(json.dumps(facts, ensure_ascii=False) if arguments.json else _as_text(facts))


def describe(folder: Path) -> dict[str, Any]:
    """Facts about a model folder; sizes are bytes.

    Raises:
        ModelFolderError: a file is missing or damaged.
    """
    config = ModelConfig.load(folder)
    for name in config.graphs.values():
        if not (folder / name).is_file():
            raise ModelFolderError(f"{folder / name} is missing. Copy the model folder again.")
    WeightsHeader.read(folder / config.weights_file)  # raises if it is not whole
    shape = config.gptjx
    kv_width = {"int8": 1, "float16": 2, "float32": 4}[config.kv_cache_dtype]
    kv_bytes = (
        2 * shape.n_layer * shape.n_embd * kv_width
    )  # a key and a value of n_embd numbers in each layer
    return {
        "folder": str(folder),
        "shape": shape.to_dict(),
        "head_dim": shape.head_dim,
        "parameters": _parameters(folder),
        "dtype": config.dtype,
        "kv_cache_dtype": config.kv_cache_dtype,
        "kv_bytes_per_token": kv_bytes,
        "kv_bytes_at_full_length": kv_bytes * shape.block_size,
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()},
        "providers": _providers(),
        "versions": {
            "sabiyarn_edge": __version__,
            **{name: version(name) for name in ("onnxruntime", "numpy", "tokenizers")},
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
        },
    }


def _parameters(folder: Path) -> int | None:
    """As the export counted them: config.json does not tell which layer norms have a bias."""
    try:
        counted = json.loads((folder / "export_report.json").read_text(encoding="utf-8"))["parameters"]
    except (OSError, ValueError, KeyError, TypeError):
        return None  # the report is for people, and a model runs without it
    return counted if isinstance(counted, int) else None


def _providers() -> list[str]:
    import onnxruntime

    return list(onnxruntime.get_available_providers())


def _as_text(facts: dict[str, Any]) -> str:
    shape, files = facts["shape"], facts["files"]
    positions = shape["block_size"]
    lengths = [length for length in (256, 1024, 4096) if length < positions]
    kv_sizes = [f"{facts['kv_bytes_per_token'] * n / MIB:.1f} MiB at {n}" for n in [*lengths, positions]]
    counted = facts["parameters"]
    parameters = "not counted (no export_report.json)" if counted is None else f"{counted:,}"
    versions = dict(facts["versions"])
    rows = {
        "model": facts["folder"],
        "shape": f"{shape['n_layer']} layers, {shape['n_heads']} heads of {facts['head_dim']}, "
        f"width {shape['n_embd']}, {shape['vocab_size']} tokens, {positions} positions",
        "parameters": f"{parameters}, stored as {facts['dtype']}",
        "KV cache": f"{facts['kv_cache_dtype']}, {facts['kv_bytes_per_token']:,} bytes per token and row: "
        f"{', '.join(kv_sizes)}",
        "files": f"{sum(files.values()) / MIB:.2f} MiB",
        **{f"  {name}": f"{size / MIB:.3f} MiB" for name, size in files.items()},
        "providers": ", ".join(facts["providers"]),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }
    width = max(map(len, rows)) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in rows.items())
