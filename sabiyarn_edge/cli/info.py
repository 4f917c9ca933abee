"""sabiyarn-edge info: shows what a model folder holds and needs."""

from __future__ import annotations

import argparse
import json
import platform
from collections import Counter
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .. import __version__
from ..chat.template import ChatTemplate
from ..errors import InvalidInputError, ModelFolderError
from ..model_folder.config import PORTABLE_FOLDER, GPTJXConfig, ModelConfig, read_json_object
from ..model_folder.graph_nodes import GraphNode, nodes_per_layer, read_nodes, stored_matrices
from ..model_folder.missing_parts import missing_parts
from ..model_folder.weights_file import WeightsHeader
from ..tasks.task_file import TaskFile
from .parser import Parser
from .terminal import printable

__all__ = ["add_to", "describe", "run"]

MIB = 1024 * 1024
MATRICES_OF_A_BLOCK = 4
"""c_attn and c_proj of attention, c_fc and c_proj of the MLP, or the two banks of a mixture."""
NAMES_SHOWN = 14
"""Names of matrices that are listed for each way of storing them; --json has all."""


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
    print(
        json.dumps(facts) if arguments.json else printable(_as_text(facts))
    )  # JSON in ASCII: nothing drives a terminal


def describe(folder: Path) -> dict[str, Any]:
    """Return facts about a model folder; sizes are bytes.

    Raises:
        ModelFolderError: a file is missing or damaged.
    """
    config = ModelConfig.load(folder)
    WeightsHeader.read(folder / config.weights_file)  # raises if it is truncated
    nodes, layers, weights = _graph(config, folder)
    shape = config.gptjx
    return {
        "folder": str(folder),
        "shape": shape.to_dict(),
        "head_dim": shape.head_dim,
        "parameters": _parameters(folder),
        "parameters_at_rest": shape.resting_parameters,
        "dtype": config.dtype,
        "weights": weights,
        "graph": {
            "nodes": len(nodes),
            "nodes_per_layer": layers,
            "operators": dict(Counter(node.operator for node in nodes).most_common()),
        },
        "kv_cache_dtype": config.kv_cache_dtype,
        "kv_bytes_per_token": config.kv_bytes_per_token,
        "kv_bytes_at_full_length": config.kv_bytes_per_token * shape.block_size,
        "files": {
            path.relative_to(folder).as_posix(): path.stat().st_size
            for path in (*sorted(folder.iterdir()), *sorted(folder.glob(f"{PORTABLE_FOLDER}/*")))
            if path.is_file()
        },
        "tasks": {name: task.describe() for name, task in TaskFile.load(folder).tasks.items()},
        "chat": ChatTemplate.find(folder) is not None,
        "missing": missing_parts(folder),
        "providers": _providers(),
        "versions": {
            "sabiyarn_edge": __version__,
            **{name: version(name) for name in ("onnxruntime", "numpy", "tokenizers")},
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}",
        },
    }


def _graph(config: ModelConfig, folder: Path) -> tuple[list[GraphNode], list[int], list[dict[str, Any]]]:
    """The nodes of the graph file, their number in each layer, and how matrices are stored.

    onnxruntime merges and drops some nodes when it loads the file.
    """
    content = config.read_graph(folder)
    try:
        nodes = read_nodes(content)
        return nodes, nodes_per_layer(nodes), _weights(nodes)
    except ValueError as error:
        path = folder / config.graph
        raise ModelFolderError(f"{path} is damaged ({error}). Copy the model folder again.") from error


def _weights(nodes: list[GraphNode]) -> list[dict[str, Any]]:
    """Each way in which matrices are stored, the most frequent first, and which are."""
    ways: dict[tuple[str, int | None], list[str]] = {}
    for matrix in stored_matrices(nodes):
        ways.setdefault((matrix.weight_type, matrix.block_size), []).append(matrix.name)
    return [
        {"type": weight_type, "block_size": size, "matrices": names}
        for (weight_type, size), names in sorted(ways.items(), key=lambda way: -len(way[1]))
    ]


def _parameters(folder: Path) -> int | None:
    """Return the export's count of parameters: config.json does not tell which layer norms have a bias."""
    try:
        counted = read_json_object(folder / "export_report.json")["parameters"]
    except (InvalidInputError, KeyError):
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
    if counted is not None and facts["parameters_at_rest"]:
        parameters += f", of which each token meets {counted - facts['parameters_at_rest']:,}"
    versions = dict(facts["versions"])
    rows = {
        "model": facts["folder"],
        "shape": f"{shape['n_layer']} layers, {shape['n_heads']} heads of {facts['head_dim']}, "
        f"width {shape['n_embd']}, {shape['vocab_size']} tokens, {positions} positions",
        **_experts_row(shape),
        "parameters": f"{parameters}, stored as {facts['dtype']}",
        **{f"  {name}": value for name, value in map(_weights_row, facts["weights"])},
        "graph": _graph_row(facts["graph"]),
        "KV cache": f"{facts['kv_cache_dtype']}, {facts['kv_bytes_per_token']:,} bytes per token and row: "
        f"{', '.join(kv_sizes)}",
        "files": f"{sum(files.values()) / MIB:.2f} MiB",
        **{f"  {name}": f"{size / MIB:.3f} MiB" for name, size in files.items()},
        "tasks": ", ".join(facts["tasks"]) or "none (no tasks.json)",
        "chat": "by its template" if facts["chat"] else "none (no chat template)",
        **({"missing": "; ".join(facts["missing"])} if facts["missing"] else {}),
        "providers": ", ".join(facts["providers"]),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
    }
    width = max(map(len, rows)) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in rows.items())


def _experts_row(shape: dict[str, Any]) -> dict[str, str]:
    """Of a mixture: how many experts the layers have, and how many of them a token meets."""
    config = GPTJXConfig.from_dict(shape)
    if not config.use_moe:
        return {}
    counts = Counter(config.experts_of(layer) for layer in range(config.n_layer))
    layers = ", ".join(f"{count} in {layers} layers" for count, layers in sorted(counts.items()))
    return {
        "experts": f"{layers}; {config.num_experts_per_tok} of them for each token, width {config.mlp_width}"
    }


def _weights_row(way: dict[str, Any]) -> tuple[str, str]:
    names: list[str] = way["matrices"]
    blocks = Counter(name.rpartition(".")[0].rpartition(".")[0] for name in names if name.startswith("h."))
    complete = [block for block, count in blocks.items() if count == MATRICES_OF_A_BLOCK]
    listed = [
        *complete,
        *(name for name in names if not name.startswith(tuple(f"{block}." for block in complete))),
    ]
    shown = listed if len(listed) <= NAMES_SHOWN else [*listed[:NAMES_SHOWN], "..."]
    blocks_of = "" if way["block_size"] is None else f"blocks of {way['block_size']}, "
    return way["type"], f"{blocks_of}{len(names)} matrices: {', '.join(shown)}"


def _graph_row(graph: dict[str, Any]) -> str:
    """Return the number of nodes: in each layer, and around the layers."""
    layers: list[int] = graph["nodes_per_layer"]
    usual, count = Counter(layers).most_common(1)[0] if layers else (0, 0)
    others = [f"{number} in layer {i}" for i, number in enumerate(layers) if number != usual]
    inside = f"{usual} in each of {count} layers" + "".join(f", {other}" for other in others)
    return f"{graph['nodes']} nodes: {inside}, {graph['nodes'] - sum(layers)} around them"
