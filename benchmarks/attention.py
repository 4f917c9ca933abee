"""Attention of one new token beside a plain read of the same memory: how near decoding comes to the memory's speed.

    attention   one CachedAttention operator per layer under onnxruntime, each over keys and values of its own
    read        exclusive-or of the same keys and values, as many threads

Both take turns; what is given is the median of the rounds and the share of the read's bandwidth. The shape is
SabiYarn-125M's: 12 layers of 12 heads of 64, one row.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from statistics import median
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.arguments import count, out_file
from benchmarks.output import put_out
from sabiyarn_edge._core import KvCache, exclusive_or
from sabiyarn_edge.bench.machine import describe_machine
from sabiyarn_edge.engine.operators import LIBRARY

LAYERS, HEADS, HEAD_DIM = 12, 12, 64
WIDTH = HEADS * HEAD_DIM
DTYPES = ("float16", "float32", "int8")
FLUSHED = 64 * 2**20
"""Bytes written between two rounds, so that no cache of the CPU holds what comes next."""


def attention_graph(dtype: str) -> bytes:
    """One CachedAttention per layer, all of the same new tokens."""
    from onnx import TensorProto, helper

    element = {"float16": TensorProto.FLOAT16, "float32": TensorProto.FLOAT, "int8": TensorProto.INT8}[dtype]
    inputs = [
        helper.make_tensor_value_info("qkv", TensorProto.FLOAT, ["tokens", 3 * WIDTH]),
        helper.make_tensor_value_info("segments", TensorProto.INT64, ["segments", 5]),
        helper.make_tensor_value_info("window", TensorProto.INT64, [2]),
        helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["mask"]),
    ]
    scales = ["scale", "scale"] if dtype == "int8" else []
    initializers = [helper.make_tensor("scale", TensorProto.FLOAT, [HEADS, HEAD_DIM], [0.02] * WIDTH)]
    nodes, outputs = [], []
    for layer in range(LAYERS):
        past = [f"key.{layer}", f"value.{layer}"]
        inputs += [helper.make_tensor_value_info(name, element, None) for name in past]
        outputs.append(helper.make_tensor_value_info(f"out.{layer}", TensorProto.FLOAT, ["tokens", WIDTH]))
        nodes.append(
            helper.make_node(
                "CachedAttention",
                ["qkv", *past, "segments", "window", "mask", *scales],
                [f"out.{layer}"],
                domain="sabiyarn",
            )
        )
    graph = helper.make_graph(nodes, "attention", inputs, outputs, initializers if scales else [])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("sabiyarn", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


class Case:
    """A cache of `past` positions and one token behind it."""

    def __init__(self, dtype: str, past: int, threads: int) -> None:
        self.cache = KvCache(
            num_layers=LAYERS, num_heads=HEADS, head_dim=HEAD_DIM, dtype=dtype, window=past + 1
        )
        self.cache.resize(1)
        self.cache.reserve(past + 1)
        rng = np.random.default_rng(past)
        positions = rng.standard_normal((LAYERS, 2, HEADS, past, HEAD_DIM), np.float32)
        self.cache.write(0, (positions * 40 if dtype == "int8" else positions).astype(dtype))
        self.cache.begin_append(0, 1)
        self.nbytes = (past + 1) * self.cache.bytes_per_position
        self.used = (past + 1) / self.cache.capacity
        self.parts: list[list[np.ndarray]] = [[] for _ in range(threads)]
        options = onnxruntime.SessionOptions()
        options.register_custom_ops_library(str(LIBRARY))
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(attention_graph(dtype), options, ["CPUExecutionProvider"])
        self.binding = session.io_binding()
        given = {
            "qkv": rng.standard_normal((1, 3 * WIDTH), np.float32),
            "segments": np.array([[0, 1, past + 1, 0, -1]]),
            "window": np.array([past + 1, 0]),
            "mask": np.zeros(0, np.float32),
        }
        self.kept = [given]
        for name, array in given.items():
            self.binding.bind_input(name, "cpu", 0, array.dtype, array.shape, array.ctypes.data)
        for layer in range(LAYERS):
            for side in ("key", "value"):
                buffer = self.cache.buffer(layer, side)
                assert buffer is not None
                self.binding.bind_input(
                    f"{side}.{layer}", "cpu", 0, np.dtype(dtype), buffer.shape, buffer.ctypes.data
                )
                self._share_out(buffer)
            self.binding.bind_output(f"out.{layer}", "cpu")
        self.session = session

    def _share_out(self, buffer: np.ndarray) -> None:
        """Give each thread its part of one buffer."""
        for part, words in zip(
            self.parts, np.array_split(buffer.view(np.uint64).ravel(), len(self.parts)), strict=True
        ):
            part.append(words)

    def attention(self) -> float:
        """Seconds."""
        started = time.perf_counter()
        self.session.run_with_iobinding(self.binding)
        return time.perf_counter() - started

    def read(self) -> float:
        """Seconds from the first thread's start to the last one's end, for what is used of the buffers."""
        ready, spans = threading.Barrier(len(self.parts)), []

        def work(part: list[np.ndarray]) -> None:
            ready.wait()
            started = time.perf_counter()
            for words in part:
                exclusive_or(words)
            spans.append((started, time.perf_counter()))

        threads = [threading.Thread(target=work, args=(part,)) for part in self.parts]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return self.used * (max(end for _, end in spans) - min(start for start, _ in spans))


def measure(case: Case, rounds: int) -> dict[str, Any]:
    flush = np.zeros(FLUSHED, np.uint8)
    seconds: dict[str, list[float]] = {"attention": [], "read": []}
    for turn in range(rounds + 1):
        for name in ("attention", "read"):
            flush += 1
            spent = getattr(case, name)()
            if turn:  # the first round warms up
                seconds[name].append(spent)
    attention, read = (median(seconds[name]) for name in ("attention", "read"))
    return {
        "mib": round(case.nbytes / 2**20, 1),
        "attention_ms": round(1e3 * attention, 3),
        "read_ms": round(1e3 * read, 3),
        "share_of_read_bandwidth": round(read / attention, 3),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--past", type=count, nargs="+", default=[128, 1024, 4000], help="tokens in the cache"
    )
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=list(DTYPES), help="of the cache")
    parser.add_argument("--threads", type=count, default=2)
    parser.add_argument("--rounds", type=count, default=21)
    parser.add_argument("--out", type=out_file, help="write the result there too, as JSON")
    arguments = parser.parse_args()
    results = {
        dtype: {
            past: measure(Case(dtype, past, arguments.threads), arguments.rounds) for past in arguments.past
        }
        for dtype in arguments.dtypes
    }
    put_out({"machine": describe_machine(), "threads": arguments.threads, "results": results}, arguments.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
