"""int8 and int4: the products against the values that are stored, and the distance from float32."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import ExportError, InvalidInputError
from sabiyarn_edge.export import export_model
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint
from tests.export.models import SHAPES, Exported, FeedingLoop, export_tiny, untiled

TOKENS = np.random.default_rng(5).integers(97, size=40)

VARIANTS: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "int8": ({"dtype": "int8"}, ()),
    "int4": (
        {"dtype": "int4", "rounding": "nearest", "keep_int8": ["lm_head", "wpe", "first"]},
        ("wte", "wpe", "h.0"),
    ),
    "int4-all": ({"dtype": "int4", "rounding": "nearest", "keep_int8": []}, ()),
    "int4-mixed": (
        {"dtype": "int4", "rounding": "nearest", "keep_int8": ["first", "mlp.c_proj", "lm_head"]},
        ("h.0", "mlp.c_proj", "wte"),
    ),
}
"""Options of the export, and what has 8 bits then."""


CASES = [
    (shape, variant)
    for shape in SHAPES
    for variant in VARIANTS
    if "use_moe" not in SHAPES[shape]
    if shape == "wide" or variant in ("int8", "int4-mixed")
]


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    shape, variant = request.param
    options, int8_names = VARIANTS[variant]
    made = export_tiny(tmp_path_factory.mktemp(variant), SHAPES[shape], kv_cache_dtype="float32", **options)
    return replace(made, int8_names=int8_names)


def graph(exported: Exported) -> onnx.ModelProto:
    return onnx.load(exported.folder / "decoder.onnx", load_external_data=False)


def test_the_tiles_hold_the_rounded_values(exported: Exported) -> None:
    """To float32's rounding of a scale."""
    model = onnx.load(exported.folder / "decoder.onnx")
    tiles = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    expected = exported.oracle_tensors()
    for node in model.graph.node:
        if node.op_type in ("Linear", "Embedding"):
            name, layout = node.input[1], {attribute.name: attribute.i for attribute in node.attribute}
            values = untiled(
                tiles[name],
                layout["N"],
                layout["K"],
                bits={3: 8, 22: 4}[layout["weight_type"]],
                size=layout["block_size"],
            )
            largest = np.abs(expected[name]).max()
            np.testing.assert_allclose(values, expected[name], rtol=1e-6, atol=1e-6 * largest)


def test_logits_are_those_of_the_stored_values(exported: Exported) -> None:
    """A float64 model of them, whose products round their inputs as ours do. What is left: float32, which may turn a
    rounding that is a tie to within its precision; one code is 1/127 of a block's largest."""
    expected = exported.oracle().logits(TOKENS)
    logits = FeedingLoop(exported, rows=1, capacity=64).feed(TOKENS)
    difference = np.abs(logits - expected) / expected.std()
    assert difference.max() < 0.05
    assert np.median(difference) < 1e-4


def test_every_product_is_of_blocks(exported: Exported) -> None:
    operators = [node.op_type for node in graph(exported).graph.node]
    assert operators.count("Linear") == 4 * exported.shape["n_layer"] + 1
    assert operators.count("Embedding") == 2
    assert not {"MatMul", "FusedMatMul", "DequantizeLinear"} & set(operators)


def test_wte_stands_once(exported: Exported) -> None:
    nodes = graph(exported).graph.node
    [lookup] = [node for node in nodes if node.name == "wte"]
    [head] = [node for node in nodes if node.name == "logits"]
    assert lookup.input[1] == head.input[1]


@pytest.mark.parametrize("dtype", ["int4", "int8"])
def test_the_runtime_generates(tmp_path: Path, dtype: str) -> None:
    """The tokens are those of the plain loop over the same graph."""
    exported = export_tiny(tmp_path, SHAPES["wide"], dtype=dtype)
    generator = EdgeGenerator.from_pretrained(exported.folder, num_threads=1)
    prompt = TOKENS[:9].tolist()
    ids = generator.generate([prompt], max_new_tokens=12, eos_token_id=None).sequences[0].tolist()
    loop = FeedingLoop(exported, rows=1, capacity=64)
    expected = [*prompt, int(loop.feed(prompt)[-1].argmax())]
    while len(expected) < len(ids):
        expected.append(int(loop.feed(expected[-1:])[-1].argmax()))
    assert ids == expected


def test_sizes_and_distances_are_in_order(tmp_path: Path) -> None:
    shape = {"n_layer": 4, "n_embd": 128, "n_heads": 4, "vocab_size": 1009, "block_size": 256}
    sizes, distances, reference = [], [], None
    for name, options in {
        "float32": {},
        "int8": {"dtype": "int8"},
        "int4": {"dtype": "int4"},
        "int4-all": {"dtype": "int4", "keep_int8": ()},
    }.items():
        exported = export_tiny(tmp_path / name, shape, **options)
        sizes.append(exported.report.sizes_mib["weights.bin"])
        logits = FeedingLoop(exported, rows=1, capacity=64).feed(TOKENS)
        reference = logits if reference is None else reference
        distances.append(float(np.abs(logits - reference).mean() / reference.std()))
    assert sizes == sorted(sizes, reverse=True)
    assert distances == sorted(distances)
    assert sizes[1] < 0.3 * sizes[0]
    assert sizes[3] < 0.17 * sizes[0]
    assert 0 < distances[1] < 0.02 < distances[3] < 0.5  # 8 bits: 1/255 of a block's range; 4 bits: 1/8


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_the_graph_is_held_to_the_weights_that_it_stores(tmp_path: Path, dtype: str) -> None:
    """A checkpoint of rounded weights has the same verification: rounding them is no part of the difference."""
    shape = SHAPES["wide"]
    as_twin = {"rounding": "nearest", "keep_int8": ()} if dtype == "int4" else {}
    first = export_tiny(tmp_path / "first", shape, dtype=dtype, kv_cache_dtype="float32", **as_twin)
    state = load_file(tmp_path / "first" / "checkpoint" / "model.safetensors")
    for name, values in first.oracle_tensors().items():
        state[name] = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    state["lm_head.weight"] = state["transformer.wte.weight"].clone()
    source = make_tiny_checkpoint(tmp_path / "second", **shape)
    save_file(state, source / "model.safetensors", metadata={"format": "pt"})
    second = export_model(
        source, tmp_path / "model", dtype="float32", kv_cache_dtype="float32", progress=False
    ).verification
    assert first.report.verification is not None
    assert second is not None
    assert first.report.verification.logit_spread == pytest.approx(second.logit_spread, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_block_size": 100}, "block size is 100; it must be one of 16, 32, 64, 128, 256 weights"),
        ({"weight_block_size": 16.0}, r"block size is 16\.0"),
        ({"weight_block_size": 32, "dtype": "float32"}, r"a block size \(32\) was given, but float32 has no"),
        ({"keep_int8": ["first"]}, r"keep_int8 \(first\) was given, but dtype is int8"),
        ({"dtype": "int4", "keep_int8": ["second"]}, "keep_int8 names 'second', which no matrix is called"),
    ],
)
def test_wrong_options(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    source = make_tiny_checkpoint(tmp_path / "checkpoint")
    with pytest.raises(InvalidInputError, match=message):
        export_model(source, tmp_path / "model", progress=False, **options)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("dtype", ["int8", "int4"])
def test_widths_without_a_block_size(tmp_path: Path, dtype: str) -> None:
    source = make_tiny_checkpoint(tmp_path / "checkpoint", n_embd=24, n_heads=3)
    with pytest.raises(
        ExportError, match=f"n_embd is 24, but {dtype} needs a multiple of 16, its smallest block"
    ):
        export_model(source, tmp_path / "model", dtype=dtype, progress=False)
    assert not (tmp_path / "model").exists()
