"""What an ONNX file computes, node by node, read without onnx: for people who want to see what runs.

Field numbers are those of onnx.proto: `ModelProto.graph.node[]`, and of a node its inputs, outputs, name, op_type and
integer attributes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from .config import GPTJXConfig
from .protobuf import messages, number_in, text

__all__ = [
    "WEIGHT_TYPES",
    "GraphNode",
    "StoredMatrix",
    "expert_differences",
    "nodes_per_layer",
    "read_nodes",
    "stored_matrices",
]

_GRAPH, _NODE, _INPUT, _OUTPUT, _NAME, _OP_TYPE, _ATTRIBUTE = 7, 1, 1, 2, 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INTEGER = 1, 3

_LAYER = re.compile(r"(?:transformer\.)?(?:h|past_key_values|present)\.(\d{1,9})\.")
"""How names of nodes begin that belong to a layer: they are those of the parameters and of the cache."""


_MATRICES = {"Linear": [(1, "")], "Embedding": [(1, "")], "RoutedMlp": [(2, "fc_"), (3, "proj_")]}
"""Operator -> which inputs are matrices, and how the names of the attributes begin that say how they lie."""

WEIGHT_TYPES = {"float32": 1, "float16": 10, "bfloat16": 16, "int8": 3, "int4": 22}
"""What the attribute weight_type of Linear and Embedding means: ONNX's numbers of element types."""


@dataclass(frozen=True)
class GraphNode:
    """One operation."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    integers: dict[str, int]
    """Its attributes that are integers; those of another type stand here as 0."""

    @property
    def layer(self) -> int | None:
        """The transformer block that it belongs to; None: to none."""
        found = _LAYER.match(self.name)
        return int(found[1]) if found else None


@dataclass(frozen=True)
class StoredMatrix:
    """How a matrix is stored."""

    name: str
    weight_type: str
    """One of WEIGHT_TYPES."""
    block_size: int | None
    """Weights that share a scale; None: floats have none."""


def read_nodes(model: bytes) -> list[GraphNode]:
    """The nodes of an ONNX file in their order.

    Raises:
        ValueError: the bytes are not an ONNX model.
    """
    return [
        GraphNode(
            name=text(node, _NAME),
            operator=text(node, _OP_TYPE),
            inputs=tuple(part.decode() for part in messages(node, _INPUT)),
            outputs=tuple(part.decode() for part in messages(node, _OUTPUT)),
            integers={
                text(attribute, _ATTRIBUTE_NAME): number_in(attribute, _ATTRIBUTE_INTEGER)
                for attribute in messages(node, _ATTRIBUTE)
            },
        )
        for graph in messages(model, _GRAPH)
        for node in messages(graph, _NODE)
    ]


def nodes_per_layer(nodes: list[GraphNode]) -> list[int]:
    """Number of nodes of each layer; those of none are left out.

    Raises:
        ValueError: a name says a layer beyond the number of nodes.
    """
    counts = Counter(node.layer for node in nodes)
    last = max((layer for layer in counts if layer is not None), default=-1)
    if last >= len(nodes):
        raise ValueError(f"a node is named for layer {last}, but there are {len(nodes)} nodes")
    return [counts[layer] for layer in range(last + 1)]


def stored_matrices(nodes: list[GraphNode]) -> list[StoredMatrix]:
    """Each matrix, or bank of experts' matrices, that nodes read, by its parameter's name without "transformer." and
    ".weight".

    Raises:
        ValueError: a node lacks its weights or an attribute, or they are of no type that is known.
    """
    names = {number: name for name, number in WEIGHT_TYPES.items()}
    found = {}
    for node in nodes:
        for place, prefix in _MATRICES.get(node.operator, ()):
            weight_type = names.get(node.integers.get(f"{prefix}weight_type", 0))
            if len(node.inputs) <= place or weight_type is None:
                raise ValueError(f"the node {node.name!r} has no weights of a known type")
            name = node.inputs[place].removeprefix("transformer.").removesuffix(".weight")
            found[name] = StoredMatrix(name, weight_type, node.integers.get(f"{prefix}block_size"))
    return list(found.values())


def expert_differences(nodes: list[GraphNode], config: GPTJXConfig) -> Iterator[str]:
    """In words, where the mixtures of experts in a graph are not those that config.json describes."""
    found = {node.layer: node.integers for node in nodes if node.operator == "RoutedMlp"}
    for layer in range(config.n_layer):
        stated = config.experts_of(layer)
        there = found.get(layer, {"experts": 0})
        if there.get("experts") != stated:
            yield f"the number of experts in layer {layer} is {stated} there and {there.get('experts')} in the graph"
        elif stated:
            for key, size, attribute in (
                ("num_experts_per_tok", config.num_experts_per_tok, "experts_per_token"),
                ("moe_dim", config.mlp_width, "H"),
            ):
                if there.get(attribute) != size:
                    yield f"{key} is {size} there and {there.get(attribute)} in layer {layer} of the graph"
