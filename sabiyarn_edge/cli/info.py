"""sabiyarn-edge info: what a model folder holds and what it needs."""

from __future__ import annotations

import argparse
import json
import platform
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import ModelFolderError
from ..model_folder.config import ModelConfig
from ..model_folder.graph_nodes import GraphNode, nodes_per_layer, read_nodes, stored_matrices
from ..model_folder.weights_file import WeightsHeader
from .parser import Parser

__all__ = ["add_to", "describe", "run"]

MIB = 1024 * 1024
MATRICES_OF_A_BLOCK = 4
"""c_attn and c_proj of the attention, c_fc and c_proj of the MLP."""
NAMES_SHOWN = 14
"""Of the matrices that are stored in one way; --json has all."""


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
    weights = folder / config.weights_file
    header = WeightsHeader.read(weights)  # raises if it is not whole
    nodes = {role: _nodes(config, folder, role) for role in config.graphs}
    shape = config.gptjx
    return {
        "folder": str(folder),
        "shape": shape.to_dict(),
        "head_dim": shape.head_dim,
        "parameters": _parameters(folder),
        "dtype": config.dtype,
        "blocks": _blocks(nodes["decoder"]),
        "graphs": {
            name: {
                "nodes": len(found),
                "nodes_per_layer": nodes_per_layer(found),
                "operators": dict(Counter(node.operator for node in found).most_common()),
            }
            for name, found in nodes.items()
        },
        "kv_cache_dtype": config.kv_cache_dtype,
        "kv_bytes_per_token": config.kv_bytes_per_token,
        "kv_bytes_at_full_length": config.kv_bytes_per_token * shape.block_size,
        "files": {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()},
        "packed_bytes": weights.stat().st_size - header.end,
        "providers": _providers(),
        "versions": {
            "sabiyarn_edge": __version__,
            **{name: version(name) for name in ("onnxruntime", "numpy", "tokenizers")},
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
        },
    }


def _nodes(config: ModelConfig, folder: Path, role: str) -> list[GraphNode]:
    """As written in the file; onnxruntime merges and drops some when it loads it."""
    content = config.read_graph(folder, role)
    try:
        return read_nodes(content)
    except (ValueError, KeyError) as error:
        path = folder / config.graphs[role]
        raise ModelFolderError(f"{path} is damaged ({error}). Copy the model folder again.") from error


def _blocks(nodes: list[GraphNode]) -> list[dict[str, Any]]:
    """Each way in which matrices are stored in blocks, the most frequent first, and which are."""
    matrices = stored_matrices(nodes)
    ways = Counter((matrix.bits, matrix.block_size) for matrix in matrices)
    return [
        {
            "bits": bits,
            "block_size": size,
            "matrices": [
                matrix.name for matrix in matrices if (matrix.bits, matrix.block_size) == (bits, size)
            ],
        }
        for (bits, size), _ in ways.most_common()
    ]


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
        **{f"  {name}": value for name, value in map(_block_row, facts["blocks"])},
        **{name: _graph_row(graph) for name, graph in facts["graphs"].items()},
        "KV cache": f"{facts['kv_cache_dtype']}, {facts['kv_bytes_per_token']:,} bytes per token and row: "
        f"{', '.join(kv_sizes)}",
        "files": f"{sum(files.values()) / MIB:.2f} MiB",
        **{f"  {name}": f"{size / MIB:.3f} MiB" for name, size in files.items()},
        **(
            {"  of them packed": f"{facts['packed_bytes'] / MIB:.3f} MiB, behind the weights in their file"}
            if facts["packed_bytes"]
            else {}
        ),
        "providers": ", ".join(facts["providers"]),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }
    width = max(map(len, rows)) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in rows.items())


def _block_row(way: dict[str, Any]) -> tuple[str, str]:
    names: list[str] = way["matrices"]
    blocks = Counter(name.rpartition(".")[0].rpartition(".")[0] for name in names if name.startswith("h."))
    whole = [block for block, count in blocks.items() if count == MATRICES_OF_A_BLOCK]
    listed = [*whole, *(name for name in names if not name.startswith(tuple(f"{block}." for block in whole)))]
    shown = listed if len(listed) <= NAMES_SHOWN else [*listed[:NAMES_SHOWN], "..."]
    return f"{way['bits']} bits", f"blocks of {way['block_size']}, {len(names)} matrices: {', '.join(shown)}"


def _graph_row(graph: dict[str, Any]) -> str:
    """The number of nodes: a layer's, and what comes upon them."""
    layers: list[int] = graph["nodes_per_layer"]
    usual, count = Counter(layers).most_common(1)[0] if layers else (0, 0)
    others = [f"{number} in layer {i}" for i, number in enumerate(layers) if number != usual]
    inside = f"{usual} in each of {count} layers" + "".join(f", {other}" for other in others)
    return f"{graph['nodes']} nodes: {inside}, {graph['nodes'] - sum(layers)} around them"
