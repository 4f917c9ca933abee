"""Turns the bundled model into a checkpoint again, so that it can be exported in other formats."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np

NANO = Path(__file__).parent.parent / "sabiyarn_edge" / "models" / "nano"


def unpack_nano(out: Path) -> Path:
    """Write config.json, model.safetensors and the tokenizer to `out`: the bundled model's weights, which are float16,
    as float32.

    Returns:
        out
    """
    import onnx
    from safetensors.numpy import save_file

    from sabiyarn_edge.export.tiles import TILE_OUTPUTS
    from sabiyarn_edge.model_folder.weights_file import WeightsHeader

    out.mkdir(parents=True, exist_ok=True)
    graph = onnx.load(NANO / "decoder.onnx", load_external_data=False).graph
    places = WeightsHeader.read(NANO / "weights.bin").tensors
    content = np.fromfile(NANO / "weights.bin", np.uint8)
    tensors = {}
    for node in graph.node:
        if node.op_type in ("Linear", "Embedding"):
            name, shape = node.input[1], {attribute.name: attribute.i for attribute in node.attribute}
            place = places[name]
            tiles = content[place.offset : place.offset + place.nbytes].view(np.float16)
            rows = tiles.reshape(-1, shape["K"], TILE_OUTPUTS).transpose(0, 2, 1).reshape(-1, shape["K"])
            tensors[name] = np.ascontiguousarray(rows[: shape["N"]], np.float32)
    for tensor in graph.initializer:
        if tensor.name.startswith("transformer.") and tensor.name not in tensors:
            tensors[tensor.name] = np.array(onnx.numpy_helper.to_array(tensor))
    save_file(tensors, out / "model.safetensors")
    config = json.loads((NANO / "config.json").read_text(encoding="utf-8"))
    config.pop("sabiyarn_edge")
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in ("tokenizer.json", "generation_config.json"):
        shutil.copyfile(NANO / name, out / name)
    return out
