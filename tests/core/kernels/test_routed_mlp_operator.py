"""The operator RoutedMlp under onnxruntime: beside a twin, in any cut and on any threads, and graphs that lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sabiyarn_edge.engine.operators import DOMAIN, register_operators
from tests.core.kernels import twins_linear as twin
from tests.core.kernels.twins_linear import FloatWeights, random_floats, random_weights

TYPES = {"float32": 1, "float16": 10, "bfloat16": 16, "int8": 3, "int4": 22}
WIDTH, HIDDEN, EXPERTS = 64, 96, 5


class Mixture:
    """Random weights of the given types, and the graph of one operator with them."""

    def __init__(self, fc_type: str, proj_type: str, *, chosen: int = 2, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.chosen = chosen
        self.gate = random_floats(rng, EXPERTS, WIDTH, "float32")
        self.fc = [matrix(rng, HIDDEN, WIDTH, fc_type) for _ in range(EXPERTS)]
        self.proj = [matrix(rng, WIDTH, HIDDEN, proj_type) for _ in range(EXPERTS)]
        self.norm_scale, self.norm_bias = rng.normal(size=(2, WIDTH)).astype(np.float32)
        self.attributes: dict[str, int] = {
            **{"K": WIDTH, "H": HIDDEN, "experts": EXPERTS, "experts_per_token": chosen},
            **{"fc_weight_type": TYPES[fc_type], "proj_weight_type": TYPES[proj_type]},
        }
        for name, kind in (("fc", fc_type), ("proj", proj_type)):
            if kind.startswith("int"):
                self.attributes[f"{name}_block_size"] = 32
        self.constants: dict[str, np.ndarray] = {
            "gate": self.gate.tiled(),
            "fc_bank": np.stack([weights.tiled() for weights in self.fc]),
            "proj_bank": np.stack([weights.tiled() for weights in self.proj]),
        }

    def open(self, *, threads: int = 1, norm: bool = True, **changes: int) -> onnxruntime.InferenceSession:
        constants = {**self.constants, "norm_scale": self.norm_scale, "norm_bias": self.norm_bias}
        names = [
            "x",
            "gate",
            "fc_bank",
            "proj_bank",
            "residual",
            *(["norm_scale", "norm_bias"] if norm else []),
        ]
        attributes = {**self.attributes, **changes}
        node = helper.make_node("RoutedMlp", names, ["y"], domain=DOMAIN, **attributes)
        inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "residual")]
        output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        tensors = [numpy_helper.from_array(constants[name], name) for name in names if name in constants]
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]
        graph = helper.make_graph([node], "one", inputs, [output], tensors)
        model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # refusals are expected
        register_operators(options)
        return onnxruntime.InferenceSession(onnx.ModelProto.SerializeToString(model), options)

    def twin(self, x: np.ndarray, residual: np.ndarray, *, norm: bool = True) -> np.ndarray:
        """In float64, every expert computed; activations are rounded to 8 bits where integers multiply them."""
        a = twin.layer_norm(x, self.norm_scale, self.norm_bias) if norm else x.astype(float)
        scores = a @ self.gate.values().T
        out = residual.astype(float)
        for expert, (fc, proj) in enumerate(zip(self.fc, self.proj, strict=True)):
            hidden = twin.gelu(rounded(a, fc) @ fc.values().T)
            y = rounded(hidden, proj) @ proj.values().T
            for row, (one, order) in enumerate(zip(scores, np.argsort(-scores, kind="stable"), strict=True)):
                best = order[: self.chosen].tolist()
                if expert in best:
                    chances = np.exp(one[best] - one[best[0]])
                    out[row] += chances[best.index(expert)] / chances.sum() * y[row]
        return out


def matrix(rng: np.random.Generator, outputs: int, inputs: int, kind: str) -> Any:
    if kind.startswith("int"):
        return random_weights(rng, outputs, inputs, 32, int(kind[3:]))
    return random_floats(rng, outputs, inputs, kind)


def rounded(x: np.ndarray, weights: Any) -> np.ndarray:
    if isinstance(weights, FloatWeights):
        return x
    codes, scales = twin.rounded_rows(x.astype(np.float32), weights.block_size)
    return (codes * scales.astype(float)[..., None]).reshape(x.shape)


def run(session: onnxruntime.InferenceSession, x: np.ndarray, residual: np.ndarray) -> np.ndarray:
    return session.run(None, {"x": x, "residual": residual})[0]


def rows(count: int) -> tuple[np.ndarray, np.ndarray]:
    x, residual = np.random.default_rng(9).normal(size=(2, count, WIDTH)).astype(np.float32)
    return x, residual


@pytest.mark.parametrize(
    ("fc_type", "proj_type"), [*((kind, kind) for kind in TYPES), ("int4", "int8"), ("bfloat16", "int8")]
)
def test_any_cut_and_any_threads_give_the_same_bits(fc_type: str, proj_type: str) -> None:
    mixture = Mixture(fc_type, proj_type)
    x, residual = rows(33)
    expected = mixture.twin(x, residual)
    results = []
    for threads in (1, 2):
        session = mixture.open(threads=threads)
        for count in (1, 5, 16, 33):
            cut = range(0, 33, count)
            results.append(
                np.concatenate([run(session, x[i : i + count], residual[i : i + count]) for i in cut])
            )
    for result in results[1:]:
        np.testing.assert_array_equal(result, results[0])
    # Floats: float32 chains of up to 96 steps, 96 * 2^-24. Integers: a value between two codes, which float32 puts on
    # the other side of it than float64, moves a result by half a code of 127 in one of 64 or 96 inputs.
    bound = 1e-5 if not {fc_type, proj_type} & {"int8", "int4"} else 5e-3
    assert np.abs(results[0] - expected).max() < bound * expected.std()


@pytest.mark.parametrize("chosen", [1, 3, EXPERTS])
def test_numbers_of_experts(chosen: int) -> None:
    mixture = Mixture("float32", "float32", chosen=chosen)
    x, residual = rows(9)
    np.testing.assert_allclose(
        run(mixture.open(norm=False), x, residual), mixture.twin(x, residual, norm=False), atol=2e-4
    )


def test_equal_scores_go_to_the_lower_index() -> None:
    mixture = Mixture("float32", "float32")
    mixture.gate = FloatWeights(np.zeros((EXPERTS, WIDTH), np.float32), "float32")
    mixture.constants["gate"] = mixture.gate.tiled()
    for bank in (
        "fc_bank",
        "proj_bank",
    ):  # those that nobody chooses hold NaN: whoever computes them is found out
        mixture.constants[bank][2:] = 255
    x, residual = rows(20)
    found = run(mixture.open(), x, residual)
    np.testing.assert_allclose(found, mixture.twin(x, residual), atol=2e-4)


def test_nan_stays_in_its_row() -> None:
    mixture = Mixture("int8", "int8")
    x, residual = rows(6)
    session = mixture.open()
    expected = run(session, x, residual)
    x[2, 7] = np.nan
    found = run(session, x, residual)
    assert np.isnan(found[2]).all()
    np.testing.assert_array_equal(np.delete(found, 2, 0), np.delete(expected, 2, 0))


def test_no_rows() -> None:
    empty = np.zeros((2, 0, WIDTH), np.float32)
    assert run(Mixture("int4", "int4").open(), empty, empty).shape == empty.shape


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"experts": 0}, r"outputs must be 1 to 2\^28"),
        ({"experts": 1025}, "experts is 1025; it must be 1 to 1024"),
        ({"experts_per_token": 0}, "experts_per_token is 0; it must be 1 to the 5 experts"),
        ({"experts_per_token": 6}, "experts_per_token is 6; it must be 1 to the 5 experts"),
        ({"K": 62}, "inputs a multiple of 8"),
        ({"H": 2**40}, r"outputs must be 1 to 2\^28"),
        ({"H": 100}, "inputs a multiple of 8"),
        ({"fc_weight_type": 2}, "weight_type is 2; it must be 1"),
        ({"proj_weight_type": 3}, "attribute proj_block_size is missing"),
        (
            {"fc_weight_type": 22, "fc_block_size": 24},
            "block_size is 24; it must be a multiple of 16 that divides",
        ),
    ],
)
def test_attributes_that_describe_nothing(changes: dict[str, int], message: str) -> None:
    with pytest.raises(Exception, match=message):
        Mixture("float16", "float16").open(**changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"experts": 4},
        {"experts": 6},
        {"H": 104},
        {"H": 2**28, "experts": 1024},
        {"proj_weight_type": 1},
        {"fc_weight_type": 1},
    ],
)
def test_weights_of_another_size_are_never_read(changes: dict[str, int]) -> None:
    mixture = Mixture("float16", "float16")
    if changes.get("experts") in (4, 6):  # the gate fits, the banks do not
        mixture.constants["gate"] = mixture.constants["gate"].copy()
    with pytest.raises(
        Exception, match=r"_bank has \d+ bytes; \d+ experts of .* take \d+ each|bytes; .* take"
    ):
        run(mixture.open(**changes), *rows(2))


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("x", (2, 63), r"x has shape \[2, 63\]; its last dimension must be the width 64"),
        ("x", (), "x has shape"),
        ("residual", (1, 64), r"residual has shape \[1, 64\]; it must be \[2, 64\]"),
    ],
)
def test_inputs_of_another_shape_are_named(name: str, shape: tuple[int, ...], message: str) -> None:
    x, residual = rows(2)
    feeds = {"x": x, "residual": residual, name: np.zeros(shape, np.float32)}
    with pytest.raises(Exception, match=message):
        Mixture("float32", "int8").open().run(None, feeds)


@pytest.mark.parametrize("name", ["norm_scale", "norm_bias"])
def test_norms_of_another_width(name: str) -> None:
    mixture = Mixture("float32", "int8")
    setattr(mixture, name, np.ones(63, np.float32))
    with pytest.raises(Exception, match=rf"{name} has shape \[63\]; it must be \[64\]"):
        run(mixture.open(), *rows(2))
