"""CachedAttention under onnxruntime: the core's results on any number of threads, and refusals before anything runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper

from sabiyarn_edge.engine.operators import DOMAIN, register_operators
from tests.core.kernels.test_attention import MOST, Cache, make_qkv

NAMES = ["qkv", "past_key", "past_value", "segments", "window", "attention_mask", "key_scale", "value_scale"]


def run(inputs: dict[str, np.ndarray], threads: int = 1) -> np.ndarray:
    """One operator over these inputs; keys and values are changed in place, as the engine binds them."""
    values = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
        for name, array in inputs.items()
    ]
    node = helper.make_node(
        "CachedAttention", [name if name in inputs else "" for name in NAMES], ["out"], domain=DOMAIN
    )
    out = helper.make_tensor_value_info(
        "out", helper.np_dtype_to_tensor_dtype(np.dtype(np.float32)), [None, None]
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    model = helper.make_model(
        helper.make_graph([node], "attention", values, [out]), opset_imports=opsets, ir_version=8
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    register_operators(options)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in inputs.items():
        binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
    binding.bind_output("out", "cpu")
    session.run_with_iobinding(binding)
    return binding.copy_outputs_to_cpu()[0]


def make_inputs(dtype: str = "float16", tokens: int = 10) -> dict[str, Any]:
    """Segments of 3 tokens, of 1 with a mask and of the rest, in a cache of four empty rows."""
    cache = Cache.make(dtype, 4, 2, 128, 16, window=128)
    rest = tokens - 4
    return {
        "qkv": make_qkv(1, tokens, 2, 16).reshape(tokens, -1),
        "past_key": cache.keys,
        "past_value": cache.values,
        "segments": np.array([[3, 3, 3, 0, -1], [0, 1, 1, 0, 2], [2, rest, rest, 0, -1]], np.int64),
        "window": np.array([128, 1], np.int64),
        "attention_mask": np.array([0, 0, -1.5], np.float32),
        **cache.scales,
    }


@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
@pytest.mark.parametrize("tokens", [10, 132])
def test_threads_give_the_bits_of_the_core(dtype: str, tokens: int) -> None:
    """10 tokens are appended and attended to in one go; 132 are more than one group of a segment."""
    from sabiyarn_edge._core_testing import attention, attention_kernels

    inputs = make_inputs(dtype, tokens)
    expected = attention(
        inputs["qkv"].reshape(tokens, 3, 2, 16),
        inputs["past_key"],
        inputs["past_value"],
        inputs["segments"],
        window=128,
        num_sinks=1,
        mask=inputs["attention_mask"],
        kernels=attention_kernels()[0],
        **{name: inputs[name] for name in ("key_scale", "value_scale") if name in inputs},
    )
    for threads in (1, 2, 3):
        again = make_inputs(dtype, tokens)
        if dtype == "int8":  # dimensions of 1 may stand anywhere
            again["key_scale"] = again["key_scale"].reshape(1, 2, 1, 16)
        found = run(again, threads)
        np.testing.assert_array_equal(found.view(np.int32), expected.reshape(tokens, -1).view(np.int32))
        np.testing.assert_array_equal(again["past_key"], inputs["past_key"])
        np.testing.assert_array_equal(again["past_value"], inputs["past_value"])


def test_a_run_of_no_tokens() -> None:
    nothing = {"qkv": np.zeros((0, 96), np.float32), "segments": np.zeros((0, 5), np.int64)}
    assert run(make_inputs() | nothing).shape == (0, 32)


SCALE = np.ones((2, 16), np.float32)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"qkv": np.zeros((10, 95), np.float32)}, r"qkv has shape \[10, 95\]; it must be \[tokens, 96\]"),
        ({"qkv": np.zeros((2, 5, 96), np.float32)}, r"qkv has shape \[2, 5, 96\]"),
        (
            {"past_key": np.zeros((4, 2, 128, 16), np.float16)},
            r"past_key has shape \[4, 2, 128, 16\]; it must be",
        ),
        (
            {"past_key": np.zeros((4, 2, 8, 16, 16))},
            "past_key is neither float16, float32 nor int8|another type",
        ),
        ({"past_value": np.zeros((4, 2, 112, 16), np.float16)}, r"past_value has shape .* \[4, 2, 128, 16\]"),
        ({"past_value": np.zeros((4, 2, 128, 16), np.float32)}, "past_value has another type than past_key"),
        (
            {"segments": np.zeros((3, 4), np.int64)},
            r"segments has shape \[3, 4\]; it must be \[segments, 5\]",
        ),
        ({"segments": np.zeros(5, np.int64)}, r"segments has shape \[5\]"),
        ({"segments": np.array([[0, 10, MOST, 0, -1]])}, "total of segment 0"),
        ({"segments": np.array([[0, 10, 10, 0, MOST]])}, "mask_at of segment 0"),
        ({"segments": np.array([[9, 10, 10, 0, -1]])}, "row of segment 0 is 9; it must be 0 to 3"),
        ({"window": np.array([128])}, r"window has shape \[1\]; it must be \[2\]"),
        ({"window": np.array([1, 0])}, "window is 1 with 0 sinks"),
        ({"attention_mask": np.zeros((1, 3), np.float32)}, r"attention_mask has shape \[1, 3\]"),
        ({"key_scale": SCALE}, "key_scale or value_scale is given, but past_key is not int8"),
    ],
)
def test_inputs_that_do_not_fit_are_named(changed: dict[str, np.ndarray], message: str) -> None:
    inputs = make_inputs() | changed
    with pytest.raises(Exception, match=message):  # onnxruntime's exceptions share no base class but this
        run(inputs)
    unchanged = make_inputs()
    for name in ("past_key", "past_value"):
        if name not in changed:
            np.testing.assert_array_equal(inputs[name], unchanged[name])


@pytest.mark.parametrize(
    ("scales", "message"),
    [
        ({}, "key_scale is missing"),
        ({"key_scale": SCALE}, "value_scale is missing"),
        ({"key_scale": SCALE[:, :8].copy(), "value_scale": SCALE}, r"key_scale has shape \[2, 8\]"),
        ({"key_scale": SCALE, "value_scale": SCALE.T.copy()}, r"value_scale has shape \[16, 2\]"),
    ],
)
def test_scales_of_int8_that_do_not_fit_are_named(scales: dict[str, np.ndarray], message: str) -> None:
    inputs = {name: array for name, array in make_inputs("int8").items() if "scale" not in name}
    with pytest.raises(Exception, match=message):
        run(inputs | scales)
