"""python -m benchmarks NAME [options]: runs one benchmark; --help lists its options."""

from __future__ import annotations

import importlib
import sys

BENCHMARKS = {
    "engines": "this package beside llama.cpp, CTranslate2, onnxruntime-genai, transformers and plain onnxruntime",
    "memory": "the memory plan beside what is measured: weights, KV cache, scratch, peak",
    "growth": "time and memory against the length of the text, up to 32768 tokens, and against the batch",
    "compare": "two results of one benchmark: each figure before and after, and which of them are worse",
    "publish": "the tables of documents and the pictures, from the committed results",
    "threads": "how threads wait: time and CPU seconds per token, and CPU seconds while idle",
    "routed": "a mixture of experts beside a dense model and beside computing all its experts",
    "overflow": "texts past the last position: sliding beside cropping at every token",
    "attention": "attention of one new token beside a plain read of the same keys and values",
    "matmul": "products with int8 and int4 weights as a share of what the dot product instructions can do",
    "kv_cache_accuracy": "perplexity and divergence with a KV cache of each type, beside its memory",
    "weight_accuracy": "perplexity and divergence with weights stored in each way, beside their size",
    "small_board": "a full-shape random SabiYarn-125M under a memory limit of 512 and 300 MiB (as root)",
    "serve_load": "many streams from one server beside one batch: throughput, first tokens, gaps, memory",
    "servers": "streams from this package's server, llama-cpp-python's and transformers', at several loads",
    "constraints": "one step under a JSON schema, a regular expression, choices or a grammar, beside one without",
    "batch": "batch jobs: throughput beside generate(), and memory and resuming against the length of the file",
    "cluster": "a thousand simulated nodes and a billion lines, through the policy code of a real job",
    "selection": "one step of greedy, sampling and beam search at 52050 entries, beside NumPy and transformers",
}
MODULES = {"engines": "comparison"}
"""Benchmark -> its module, where the names differ."""

ERROR = "error: "


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1] not in BENCHMARKS:
        print("usage: python -m benchmarks NAME [options]\n")
        for name, what in BENCHMARKS.items():
            print(f"  {name:18} {what}")
        return 0 if sys.argv[1:] in ([], ["-h"], ["--help"]) else 2
    from benchmarks.children import ChildFailed
    from sabiyarn_edge.errors import SabiYarnError

    try:
        name = sys.argv[1]
        module = importlib.import_module(f"benchmarks.{MODULES.get(name, name)}")
        sys.argv[:2] = [f"python -m benchmarks {name}"]
        return int(module.main())
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith(("benchmarks", "sabiyarn_edge")):
            raise
        reason = f'the package {error.name} is not installed. Run: pip install -e ".[benchmarks]"'
    except (SabiYarnError, ChildFailed) as error:
        reason = str(error).removeprefix(ERROR)  # a child's, which is one of us
    print(f"{ERROR}{reason}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
