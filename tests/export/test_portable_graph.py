"""The portable graph against a float64 NumPy model, under plain onnxruntime and under onnx's reference evaluator."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from tests.data import run_portable
from tests.export.models import SHAPES, Exported, export_tiny
from tests.reference_gptjx import ReferenceGPTJX

EXAMPLE = Path(run_portable.__file__)
POSITIONS = 24
TOLERANCE = 2e-5
"""Of the logits' standard deviation: float32 sums in another order than the oracle's float64 ones. Measured: up to
3e-6 on these shapes."""

Run = Callable[[Any, dict[str, np.ndarray]], list[np.ndarray]]
"""session.run of either engine."""


@pytest.fixture(scope="module", params=["float32", "float16"])
def dtype(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES)
def exported(
    request: pytest.FixtureRequest, dtype: str, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    folder = tmp_path_factory.mktemp("portable")
    return export_tiny(folder, request.param, dtype=dtype, portable=True, verify=False)


def graph_file(exported: Exported) -> Path:
    return exported.folder / "portable" / "model.onnx"


def plain_run(exported: Exported) -> Run:
    """onnxruntime that knows no operators but its own; one thread, since more would only wait for each other."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(graph_file(exported), options, providers=["CPUExecutionProvider"]).run


def empty_past(exported: Exported, rows: int) -> dict[str, np.ndarray]:
    shape = exported.shape
    past = np.zeros((rows, shape["n_heads"], 0, shape["n_embd"] // shape["n_heads"]), np.float32)
    return {f"past_key_values.{i}.{part}": past for i in range(shape["n_layer"]) for part in ("key", "value")}


def feed(run: Run, exported: Exported, tokens: np.ndarray, mask: np.ndarray, chunks: list[int]) -> np.ndarray:
    """Logits [rows, T, vocab] of tokens [rows, T], fed in chunks under the additive mask [T, T]."""
    past, end, logits = empty_past(exported, len(tokens)), 0, []
    names = ["logits", *(name.replace("past_key_values", "present") for name in past)]
    for count in chunks:
        begin, end = end, end + count
        feeds = {
            "input_ids": tokens[:, begin:end],
            "position_ids": np.broadcast_to(np.arange(begin, end), (len(tokens), count)),
            "attention_mask": np.broadcast_to(mask[begin:end, :end], (len(tokens), 1, count, end)),
        }
        new, *present = run(names, {**feeds, **past})
        assert all(array.shape[2] == end for array in present)
        past = dict(zip(past, present, strict=True))
        logits.append(new)
    return np.concatenate(logits, axis=1)


def tokens_for(exported: Exported, *shape: int) -> np.ndarray:
    return np.random.default_rng(7).integers(exported.shape["vocab_size"], size=shape)


def causal(count: int) -> np.ndarray:
    return np.triu(np.full((count, count), -np.inf, np.float32), k=1)


def random_mask(count: int) -> np.ndarray:
    """A third hidden, the rest weighted; every query sees the first key, and some look ahead."""
    rng = np.random.default_rng(1)
    shape = (count, count)
    mask = np.where(rng.random(shape) < 1 / 3, -np.inf, rng.normal(size=shape)).astype(np.float32)
    mask[:, 0] = 0
    return mask


def assert_close(logits: np.ndarray, expected: np.ndarray) -> None:
    assert logits.shape == expected.shape
    np.testing.assert_allclose(logits, expected, rtol=0, atol=TOLERANCE * expected.std())


def test_a_prompt_under_any_mask(exported: Exported) -> None:
    tokens, mask = tokens_for(exported, 1, POSITIONS), random_mask(POSITIONS)
    logits = feed(plain_run(exported), exported, tokens, mask, [POSITIONS])
    assert_close(logits[0], exported.oracle().logits(tokens[0], mask=mask))


@pytest.mark.parametrize("chunks", [[1] * POSITIONS, [7, 1, 12, 4]], ids=["one-by-one", "uneven"])
def test_chunks_of_a_batch_equal_the_full_forward(exported: Exported, chunks: list[int]) -> None:
    tokens = tokens_for(exported, 3, POSITIONS)
    logits = feed(plain_run(exported), exported, tokens, causal(POSITIONS), chunks)
    for row, new in zip(tokens, logits, strict=True):
        assert_close(new, exported.oracle().logits(row))


@pytest.mark.parametrize("hide", [-np.inf, np.finfo(np.float32).min, -1e9], ids=["inf", "lowest", "1e9"])
def test_padding_on_the_left(exported: Exported, hide: float) -> None:
    """Queries of padding attend to nothing, and no NaN of theirs reaches the text."""
    texts = [tokens_for(exported, POSITIONS), tokens_for(exported, 9)]
    padding = np.array([[POSITIONS - len(text)] for text in texts])
    tokens = np.array([np.pad(text, (POSITIONS - len(text), 0)) for text in texts])
    keys = np.arange(POSITIONS)
    hidden = (keys > keys[:, None]) | (keys < padding[:, :, None])
    mask = np.where(hidden, hide, 0).astype(np.float32)[:, None]
    positions = np.maximum(keys - padding, 0)
    run, past, step = plain_run(exported), empty_past(exported, 2), 4
    logits = []
    for begin in range(0, POSITIONS, step):
        new = slice(begin, begin + step)
        feeds = {"input_ids": tokens[:, new], "position_ids": positions[:, new]}
        feeds["attention_mask"] = mask[:, :, new, : begin + step]
        piece, *present = run(None, {**feeds, **past})
        past = dict(zip(past, present, strict=True))
        logits.append(piece)
    whole = np.concatenate(logits, axis=1)
    assert np.isfinite(whole).all()
    for row, text in zip(whole, texts, strict=True):
        assert_close(row[POSITIONS - len(text) :], exported.oracle().logits(text))


def test_the_reference_evaluator_computes_the_same(exported: Exported) -> None:
    """onnx's own, in Python, from the standard's text; it reads the weights where the graph says they are."""
    evaluator = ReferenceEvaluator(str(graph_file(exported)))
    tokens = tokens_for(exported, 1, 9)
    logits = feed(evaluator.run, exported, tokens, causal(9), [8, 1])
    assert_close(logits[0], exported.oracle().logits(tokens[0]))


def test_quantized_exports_have_the_checkpoints_weights(tmp_path: Path) -> None:
    shape = SHAPES["wide"]
    exported = export_tiny(tmp_path, shape, dtype="int4", rounding="nearest", portable=True, verify=False)
    tokens = tokens_for(exported, 1, 9)
    logits = feed(plain_run(exported), exported, tokens, causal(9), [9])
    sizes = {name: exported.shape[name] for name in ("n_layer", "n_heads")}
    assert_close(logits[0], ReferenceGPTJX(exported.tensors, **sizes).logits(tokens[0]))


def test_inputs_and_outputs_are_the_contract(exported: Exported) -> None:
    session = plain_run(exported).__self__  # type: ignore[attr-defined]
    shape = exported.shape
    heads, head_dim = shape["n_heads"], shape["n_embd"] // shape["n_heads"]
    names = [f"{layer}.{part}" for layer in range(shape["n_layer"]) for part in ("key", "value")]
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("input_ids", "tensor(int64)", ["batch", "sequence"]),
        ("position_ids", "tensor(int64)", ["batch", "sequence"]),
        ("attention_mask", "tensor(float)", ["batch", 1, "sequence", "past_and_sequence"]),
        *((f"past_key_values.{n}", "tensor(float)", ["batch", heads, "past", head_dim]) for n in names),
    ]
    assert [(o.name, o.type, o.shape) for o in session.get_outputs()] == [
        ("logits", "tensor(float)", ["batch", "sequence", shape["vocab_size"]]),
        *((f"present.{n}", "tensor(float)", ["batch", heads, "past_and_sequence", head_dim]) for n in names),
    ]
    assert session.get_modelmeta().custom_metadata_map == {"block_size": str(shape["block_size"])}


def test_standard_operators_of_opset_17_only(exported: Exported) -> None:
    onnx.checker.check_model(str(graph_file(exported)), full_check=True)  # with the shapes of every value
    model = onnx.load(graph_file(exported), load_external_data=False)
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert model.ir_version == 8  # of ONNX 1.12, which brought the opset
    assert {node.domain for node in model.graph.node} == {""}


def test_onnxruntime_has_nothing_to_warn_of(exported: Exported, capfd: pytest.CaptureFixture[str]) -> None:
    feed(plain_run(exported), exported, tokens_for(exported, 2, 5), causal(5), [4, 1])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("prefix", [0, 8])
def test_the_example_decodes(exported: Exported, prefix: int) -> None:
    ids, new = tokens_for(exported, 12).tolist(), 6
    arguments = ["--prefix", str(prefix), "--new", str(new), *map(str, ids)]
    output = subprocess.run(
        [sys.executable, "-I", EXAMPLE, graph_file(exported).parent, *arguments],
        capture_output=True,
        text=True,
        check=True,
    )
    assert output.stderr == ""
    expected = list(ids)
    while len(expected) < len(ids) + new:
        mask = causal(len(expected))
        mask[:prefix, :prefix] = 0
        expected.append(int(exported.oracle().logits(np.array(expected), mask=mask)[-1].argmax()))
    assert [int(token) for token in output.stdout.split()] == expected


def test_the_example_imports_nothing_of_ours() -> None:
    imported = [
        name
        for node in ast.walk(ast.parse(EXAMPLE.read_text(encoding="utf-8")))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names])
    ]
    assert sorted(imported) == ["__future__", "argparse", "numpy", "onnxruntime", "pathlib"]
