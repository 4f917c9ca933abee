"""The bundled model as a checkpoint again, so that it can be exported in other ways."""

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

    from sabiyarn_edge.model_folder.weights_file import WeightsHeader

    out.mkdir(parents=True, exist_ok=True)
    tensors = {}
    content = np.fromfile(NANO / "weights.bin", np.uint8)
    for name, place in WeightsHeader.read(NANO / "weights.bin").tensors.items():
        stored = content[place.offset : place.offset + place.nbytes].view(place.dtype).reshape(place.shape)
        # Matrices stand as [inputs, outputs] there, the two tables as they are.
        tensors[name] = np.ascontiguousarray(stored.T if ".h." in name else stored, np.float32)
    for tensor in onnx.load(NANO / "decoder.onnx", load_external_data=False).graph.initializer:
        if tensor.name.startswith("transformer.") and tensor.name not in tensors:
            tensors[tensor.name] = np.array(onnx.numpy_helper.to_array(tensor))
    save_file(tensors, out / "model.safetensors")
    config = json.loads((NANO / "config.json").read_text(encoding="utf-8"))
    config.pop("sabiyarn_edge")
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in ("tokenizer.json", "generation_config.json"):
        shutil.copyfile(NANO / name, out / name)
    return out
