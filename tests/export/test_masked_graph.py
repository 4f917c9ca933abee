"""decoder_masked.onnx against a float64 NumPy model: any mask, chunks, batches, unused slots of the past."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from sabiyarn_edge.engine.operators import LIBRARY
from tests.data import run_decoder_masked
from tests.export.models import SHAPES, Exported, export_tiny, open_graph
from tests.export.test_decoder_graph import CACHE_BOUND, INT8_BOUND, TYPES

POSITIONS = 40
EXAMPLE = Path(run_decoder_masked.__file__)


@pytest.fixture(scope="module", params=TYPES, ids=lambda types: f"{types[0]}-kv-{types[1]}")
def types(request: pytest.FixtureRequest) -> tuple[str, str]:
    return request.param


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES)
def exported(
    request: pytest.FixtureRequest, types: tuple[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    return export_tiny(
        tmp_path_factory.mktemp("masked"), request.param, dtype=types[0], kv_cache_dtype=types[1]
    )


class MaskedLoop:
    """Feeds the graph a past of `slots` slots per row, of which the first ones are in use."""

    def __init__(self, exported: Exported, *, rows: int = 1, slots: int = 64) -> None:
        shape = exported.shape
        self._session = open_graph(exported.folder / "decoder_masked.onnx")
        self._sides = [f"{layer}.{side}" for layer in range(shape["n_layer"]) for side in ("key", "value")]
        past = (rows, shape["n_heads"], slots, shape["n_embd"] // shape["n_heads"])
        # Unused slots hold numbers that would be noticed if the mask did not hide them.
        self.past = {side: np.full(past, 9.0, exported.report.kv_cache_dtype) for side in self._sides}
        self.slots, self.length = slots, 0

    def feed(self, tokens: np.ndarray, mask: np.ndarray, *, wanted: list[int] | None = None) -> np.ndarray:
        """Append tokens [rows, T], which see what mask [1|rows, T, length + T] (additive) says; their logits."""
        count, used = tokens.shape[1], self.length
        whole = np.full((len(mask), 1, count, self.slots + count), -np.inf, np.float32)
        whole[:, 0, :, :used] = mask[:, :, :used]
        whole[:, 0, :, self.slots :] = mask[:, :, used:]
        logits, *present = self._session.run(
            ["logits", *(f"present.{side}" for side in self._sides)],
            {
                "input_ids": tokens,
                "position_ids": np.broadcast_to(np.arange(used, used + count), tokens.shape),
                "logits_index": np.array(range(count) if wanted is None else wanted, np.int64),
                "attention_mask": whole,
                **{f"past_key_values.{side}": array for side, array in self.past.items()},
            },
        )
        for side, new in zip(self._sides, present, strict=True):
            assert new.shape[2] == count
            if self.slots:
                self.past[side][:, :, used : used + count] = new
        self.length += count
        return logits


def tokens_for(exported: Exported, *shape: int) -> np.ndarray:
    return np.random.default_rng(7).integers(exported.shape["vocab_size"], size=shape)


def random_mask(*shape: int, seed: int = 1) -> np.ndarray:
    """Additive: a third hidden, the rest weighted; every query sees the first key."""
    rng = np.random.default_rng(seed)
    mask = np.where(rng.random(shape) < 1 / 3, -np.inf, rng.normal(size=shape)).astype(np.float32)
    mask[..., 0] = 0
    return mask


def assert_close(exported: Exported, logits: np.ndarray, expected: np.ndarray) -> None:
    assert logits.shape == expected.shape
    error = np.abs(logits - expected).max() / expected.std()
    assert error < CACHE_BOUND[exported.report.kv_cache_dtype] + INT8_BOUND * (
        exported.report.dtype == "int8"
    )


@pytest.mark.parametrize("slots", [0, 64], ids=["no-past", "unused-past"])
def test_a_prompt_under_any_mask(exported: Exported, slots: int) -> None:
    """Tokens look ahead as far as the mask lets them."""
    tokens, mask = tokens_for(exported, 1, POSITIONS), random_mask(POSITIONS, POSITIONS)
    logits = MaskedLoop(exported, slots=slots).feed(tokens, mask[None])
    assert_close(exported, logits[0], exported.oracle().logits(tokens[0], mask=mask))


@pytest.mark.parametrize(
    "chunks", [[1] * POSITIONS, [7, 1, 12, 20], [39, 1]], ids=["one-by-one", "uneven", "prefill-decode"]
)
def test_chunks_equal_the_full_forward(exported: Exported, chunks: list[int]) -> None:
    tokens = tokens_for(exported, 1, POSITIONS)
    mask = random_mask(POSITIONS, POSITIONS) + np.triu(np.full((POSITIONS, POSITIONS), -np.inf), k=1)
    loop = MaskedLoop(exported)
    logits = [
        loop.feed(tokens[:, end - count : end], mask[None, end - count : end, :end])
        for count, end in zip(chunks, np.cumsum(chunks), strict=True)
    ]
    assert_close(exported, np.concatenate(logits, axis=1)[0], exported.oracle().logits(tokens[0], mask=mask))


@pytest.mark.parametrize("own_masks", [True, False], ids=["a-mask-each", "one-mask"])
def test_batches(exported: Exported, own_masks: bool) -> None:
    rows = 3
    tokens = tokens_for(exported, rows, 12)
    masks = random_mask(rows if own_masks else 1, 12, 12)
    logits = MaskedLoop(exported, rows=rows).feed(tokens, masks)
    for row in range(rows):
        expected = exported.oracle().logits(tokens[row], mask=masks[row if own_masks else 0])
        assert_close(exported, logits[row], expected)


@pytest.mark.parametrize("wanted", [[], [9], [3, 0, 3]], ids=["none", "last", "any-order"])
def test_logits_of_the_wanted_positions_only(exported: Exported, wanted: list[int]) -> None:
    tokens, mask = tokens_for(exported, 1, 10), random_mask(10, 10)
    logits = MaskedLoop(exported).feed(tokens, mask[None], wanted=wanted)
    assert logits.shape == (1, len(wanted), exported.shape["vocab_size"])
    if wanted:
        assert_close(exported, logits[0], exported.oracle().logits(tokens[0], mask=mask)[wanted])


def test_inputs_and_outputs_are_the_contract(exported: Exported) -> None:
    session = open_graph(exported.folder / "decoder_masked.onnx")
    shape = exported.shape
    heads, head_dim = shape["n_heads"], shape["n_embd"] // shape["n_heads"]
    kv_type = f"tensor({exported.report.kv_cache_dtype.replace('float32', 'float')})"
    sides = [f"{layer}.{side}" for layer in range(shape["n_layer"]) for side in ("key", "value")]
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("input_ids", "tensor(int64)", ["batch", "sequence"]),
        ("position_ids", "tensor(int64)", ["batch", "sequence"]),
        ("logits_index", "tensor(int64)", ["n"]),
        ("attention_mask", "tensor(float)", ["mask_batch", 1, "sequence", "past_and_sequence"]),
        *((f"past_key_values.{side}", kv_type, ["batch", heads, "past", head_dim]) for side in sides),
    ]
    assert [(o.name, o.type, o.shape) for o in session.get_outputs()] == [
        ("logits", "tensor(float)", ["batch", "n", shape["vocab_size"]]),
        *((f"present.{side}", kv_type, ["batch", heads, "sequence", head_dim]) for side in sides),
    ]
    fast = open_graph(exported.folder / "decoder.onnx")
    assert session.get_modelmeta().custom_metadata_map == fast.get_modelmeta().custom_metadata_map


def test_the_large_tensors_are_those_of_the_fast_graph(exported: Exported) -> None:
    def places(file: str) -> dict[str, dict[str, str]]:
        graph = onnx.load(exported.folder / file, load_external_data=False).graph
        return {
            tensor.name: {entry.key: entry.value for entry in tensor.external_data}
            for tensor in graph.initializer
            if tensor.external_data
        }

    assert places("decoder_masked.onnx") == places("decoder.onnx")


def test_standard_operators_only_unless_weights_are_blocks(exported: Exported) -> None:
    model = onnx.load(exported.folder / "decoder_masked.onnx", load_external_data=False)
    contributed = {node.op_type for node in model.graph.node if node.domain}
    blocks = exported.report.dtype == "int8"
    assert contributed == ({"Linear", "Embedding", "ResidualNorm"} if blocks else set())
    assert {opset.domain for opset in model.opset_import} == ({"", "sabiyarn"} if blocks else {""})
    assert not any(
        "past_key_values" in name
        for node in model.graph.node
        if node.op_type == "Concat"
        for name in node.input
    )  # nothing is copied behind the past


def test_onnxruntime_has_nothing_to_warn_of(exported: Exported, capfd: pytest.CaptureFixture[str]) -> None:
    for slots in (0, 16):
        MaskedLoop(exported, slots=slots).feed(tokens_for(exported, 1, 5), random_mask(1, 5, 5))
    assert capfd.readouterr() == ("", "")


def test_another_runtime_computes_the_same(tmp_path: Path) -> None:
    """ONNX's own evaluator in Python, which knows the standard's operators and no others."""
    exported = export_tiny(tmp_path, SHAPES["biases"], kv_cache_dtype="float32")
    evaluator = ReferenceEvaluator(onnx.load(exported.folder / "decoder_masked.onnx"))
    tokens = tokens_for(exported, 1, 9)
    mask = random_mask(9, 9) + np.triu(np.full((9, 9), -np.inf, np.float32), k=1)
    loop = MaskedLoop(exported, slots=12)
    loop._session = evaluator  # both have run(names, feeds)
    logits = [loop.feed(tokens[:, :4], mask[None, :4, :4]), loop.feed(tokens[:, 4:], mask[None, 4:])]
    assert_close(exported, np.concatenate(logits, axis=1)[0], exported.oracle().logits(tokens[0], mask=mask))


def test_the_example_runs_without_our_package(exported: Exported) -> None:
    ids = tokens_for(exported, 12).tolist()
    library = ["--operators", LIBRARY] if exported.report.dtype == "int8" else []
    command = [sys.executable, "-I", EXAMPLE, exported.folder, "--prefix", "8", "--new", "6", *library]
    output = subprocess.run(
        [*command, "--", *map(str, ids)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert output.stderr == ""
    sequence = [int(token) for token in output.stdout.split()]
    assert sequence[:12] == ids
    assert len(sequence) == 18
    mask = np.triu(np.full((17, 17), -np.inf), k=1)
    mask[:8, :8] = 0
    logits = exported.oracle().logits(sequence[:-1], mask=mask)[11:]
    # Where the two best are nearer than the bound, rounding may decide.
    loss = (logits.max(axis=1) - logits[np.arange(6), sequence[12:]]) / logits.std()
    bound = CACHE_BOUND[exported.report.kv_cache_dtype] + INT8_BOUND * (exported.report.dtype == "int8")
    assert (loss <= 2 * bound).all()


def test_the_example_imports_nothing_of_ours() -> None:
    imported = [
        name
        for node in ast.walk(ast.parse(EXAMPLE.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    ]
    assert sorted(imported) == ["__future__", "argparse", "numpy", "onnxruntime", "pathlib"]
