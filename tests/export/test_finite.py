"""Checkpoints whose weights are finite, but whose model overflows float32: refused wherever the torch model runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from sabiyarn_edge.errors import CheckpointError
from sabiyarn_edge.export import export_model
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint
from tests.tiny_tokenizer import tiny_tokenizer

DENSE: dict[str, Any] = {"vocab_size": 600, "n_embd": 32}
ROUTED = {**DENSE, "use_moe": True, "moe_dim": 48}
OWN, RANDOM = "logits for text that it writes", "logits for random tokens"
CALIBRATION, EVALUATION = "logits for the calibration text", "logits for the evaluation text"
TEXT = "the quick brown fox jumps over the lazy dog and runs away " * 20


def overflowing(folder: Path, shape: dict[str, Any]) -> Path:
    """One weight of 1e38: inputs near 1 times it are finite, and what the next layers make of them is not."""
    source = make_tiny_checkpoint(folder, **shape)
    tiny_tokenizer().save(str(source / "tokenizer.json"))
    tensors = load_file(source / "model.safetensors")
    if "use_moe" in shape:
        tensors["transformer.h.0.mlp.fc_bank"][3, 0, 0] = 1e38
    else:
        tensors["transformer.h.0.mlp.c_fc.weight"][0, 0] = 1e38
    save_file(tensors, source / "model.safetensors")
    return source


@pytest.mark.parametrize("shape", [DENSE, ROUTED], ids=["dense", "routed"])
@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({}, OWN),
        ({"dtype": "int4"}, OWN),
        ({"kv_cache_dtype": "int8"}, OWN),
        ({"dtype": "float32", "portable": True}, RANDOM),
        ({"dtype": "int4", "calibration": "text"}, CALIBRATION),
        ({"dtype": "int4", "keep_int8": ["wpe"], "calibration": "text"}, "sums of products of the inputs of"),
        ({"kv_cache_dtype": "int8", "calibration": "text"}, "keys or values for the calibration text"),
        ({"evaluate": "text", "verify": False}, EVALUATION),
    ],
    ids=["int8", "int4", "int8-cache", "portable", "kept", "gptq", "scales", "evaluate"],
)
def test_the_error_blames_the_checkpoint(
    tmp_path: Path, shape: dict[str, Any], options: dict[str, Any], what: str
) -> None:
    source, text = overflowing(tmp_path / "checkpoint", shape), tmp_path / "text.txt"
    text.write_text(TEXT)
    options = {name: text if value == "text" else value for name, value in options.items()}
    with pytest.raises(CheckpointError) as caught:
        export_model(source, tmp_path / "out", progress=False, **options)
    message = str(caught.value)
    assert message.startswith(f"the torch model itself gives NaN or infinite {what}")
    assert message.endswith("take an earlier one.")
    assert len(message.splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_the_reference_of_the_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reached where the texts before it met no overflow: here there are none."""
    monkeypatch.setattr("sabiyarn_edge.export.exporter.run_evaluation", lambda *_: None)
    source = overflowing(tmp_path / "checkpoint", DENSE)
    with pytest.raises(CheckpointError, match=f"itself gives NaN or infinite {RANDOM}"):
        export_model(source, tmp_path / "out", progress=False, dtype="float32")
