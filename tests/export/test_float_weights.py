"""float32, float16 and bfloat16: what is stored, and the runtime on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.export import export_model
from sabiyarn_edge.export.float_weights import bfloat16_bits, bfloat16_values
from sabiyarn_edge.model_folder.config import ModelConfig
from sabiyarn_edge.modeling import GPTJXForCausalLM
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint
from tests.export.models import untiled_floats

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def checkpoint_of(folder: Path, dtype: torch.dtype) -> Path:
    """A tiny checkpoint whose tensors are stored in this type."""
    source = make_tiny_checkpoint(folder)
    state = {name: tensor.to(dtype) for name, tensor in load_file(source / "model.safetensors").items()}
    save_file(state, source / "model.safetensors", metadata={"format": "pt"})
    return source


def stored_matrices(folder: Path) -> dict[str, np.ndarray]:
    model = onnx.load(folder / "decoder.onnx")
    tiles = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    names = {number: name for name, number in (("float32", 1), ("float16", 10), ("bfloat16", 16))}
    found = {}
    for node in model.graph.node:
        if node.op_type in ("Linear", "Embedding"):
            shape = {attribute.name: attribute.i for attribute in node.attribute}
            found[node.input[1]] = untiled_floats(
                tiles[node.input[1]], shape["N"], shape["K"], weight_type=names[shape["weight_type"]]
            )
    return found


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("asked", ["keep", "its own"])
def test_a_checkpoints_own_type_is_stored_bit_for_bit(tmp_path: Path, dtype: str, asked: str) -> None:
    source = checkpoint_of(tmp_path / "checkpoint", DTYPES[dtype])
    report = export_model(
        source, tmp_path / "model", dtype="keep" if asked == "keep" else dtype, progress=False
    )
    assert report.dtype == ModelConfig.load(tmp_path / "model").dtype == dtype
    assert all(error.largest_error == 0 for error in report.weights.values())
    state = load_file(source / "model.safetensors")
    for name, values in stored_matrices(tmp_path / "model").items():
        np.testing.assert_array_equal(values, state[name].to(torch.float32).numpy())


@pytest.mark.parametrize("dtype", DTYPES)
def test_others_are_rounded_to_the_nearest_as_torch_does(tmp_path: Path, dtype: str) -> None:
    source = make_tiny_checkpoint(tmp_path / "checkpoint")
    export_model(source, tmp_path / "model", dtype=dtype, verify=False, progress=False)
    state = load_file(source / "model.safetensors")
    for name, values in stored_matrices(tmp_path / "model").items():
        np.testing.assert_array_equal(values, state[name].to(DTYPES[dtype]).to(torch.float32).numpy())


def test_keep_of_mixed_types_is_float32(tmp_path: Path) -> None:
    """float16 and bfloat16 hold numbers that the other does not."""
    source = checkpoint_of(tmp_path / "checkpoint", torch.bfloat16)
    state = load_file(source / "model.safetensors")
    name = "transformer.h.0.mlp.c_fc.weight"
    state[name] = state[name].to(torch.float16)
    save_file(state, source / "model.safetensors", metadata={"format": "pt"})
    report = export_model(source, tmp_path / "model", dtype="keep", verify=False, progress=False)
    assert report.dtype == "float32"
    assert all(error.largest_error == 0 for error in report.weights.values())


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_runtimes_tokens_are_torchs(tmp_path: Path, dtype: str) -> None:
    """Greedy, on the weights as they are stored; a float32 KV cache, so that nothing else is rounded."""
    source = checkpoint_of(tmp_path / "checkpoint", DTYPES[dtype])
    export_model(source, tmp_path / "model", dtype="keep", kv_cache_dtype="float32", progress=False)
    prompt = [3, 1, 4, 1, 5, 9, 2, 6]
    options = {"max_new_tokens": 24, "eos_token_id": None, "do_sample": False}
    expected = GPTJXForCausalLM.from_pretrained(source).generate(torch.tensor([prompt]), **options)
    generator = EdgeGenerator.from_pretrained(tmp_path / "model", num_threads=1)
    assert generator.generate([prompt], **options).sequences.tolist() == expected.tolist()


def test_bfloat16_rounds_as_torch_does() -> None:
    """Random bits, every tie of some exponents, the largest numbers, subnormal ones, infinities and NaN."""
    rng = np.random.default_rng(1)
    ties = (np.arange(2**12, dtype=np.uint32) + 0x3F00 << 16) | 0x8000
    edges = np.array(
        [0, 1, 0x7F7FFFFF, 0x7F7F8000, 0x7F7F7FFF, 0x7F800000, 0x7F800001, 0x7FFFFFFF], np.uint32
    )
    bits = np.concatenate([rng.integers(0, 2**32, 200_000, dtype=np.uint32), ties, ties - 1, ties + 1, edges])
    values = np.concatenate([bits, bits ^ 0x80000000]).view(np.float32)
    expected = torch.from_numpy(values).to(torch.bfloat16).to(torch.float32).numpy()
    np.testing.assert_array_equal(bfloat16_values(bfloat16_bits(values)), expected)
