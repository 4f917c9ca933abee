"""Measures what a mixture of experts costs beside a dense model, and what routing saves.

Three models of random weights, in the same weight type and with a float16 KV cache:
    dense     SabiYarn-125M's shape
    routed    SabiYarn-280M's: 45 experts in 12 layers, two for each token
    all       the same file, but every expert computes every token

Each has a process of its own. Their trials are interleaved (see children.py), and begin with another one each round.
CPU seconds are those of the whole process: with --threads 1 they tell the work of a step on a busy machine too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arguments import count, out_file
from benchmarks.output import put_out

PROMPT_TOKENS, STEPS, BATCH = 256, 16, 8
ROUTED, DENSE = "routed", "long"
"""Their shapes in models.py."""
MODELS = ("dense", "routed", "all")
RATIOS = {
    "decode time, routed / dense": ("decode_ms", "routed", "dense"),
    "decode time, all / routed": ("decode_ms", "all", "routed"),
    "decode CPU time, routed / dense": ("decode_cpu_ms", "routed", "dense"),
    "decode CPU time, all / routed": ("decode_cpu_ms", "all", "routed"),
    "prefill tokens/s, routed / dense": ("prefill_tokens_per_second", "routed", "dense"),
    "prefill tokens/s, routed / all": ("prefill_tokens_per_second", "routed", "all"),
}


def serve(model: Path, threads: int) -> None:
    """Load, then for each line on standard input answer with the figures of one trial as JSON."""
    from sabiyarn_edge import EdgeGenerator

    generator = EdgeGenerator.from_pretrained(model, num_threads=threads)
    rng = np.random.default_rng(0)
    vocabulary = generator.config.gptjx.vocab_size

    def generate(rows: int, length: int) -> Any:
        prompts = rng.integers(vocabulary, size=(rows, length)).tolist()
        return generator.generate(
            prompts,
            max_new_tokens=STEPS + 1,
            eos_token_id=None,
            reuse_prefix=False,
            prompt_lookup_num_tokens=0,
        ).timings

    generate(1, PROMPT_TOKENS)  # everything is in memory from here on
    print(json.dumps({"threads": generator._engine.decoder.num_threads}), flush=True)
    for _ in sys.stdin:
        single, batch = generate(1, PROMPT_TOKENS), generate(BATCH, 16)
        begun = time.process_time()
        generate(1, 1)
        busy = time.process_time() - begun
        answer = {
            "prefill_tokens_per_second": single.prefill_tokens_per_second,
            "decode_ms": 1e3 * single.decode_seconds / single.decode_tokens,
            "decode_cpu_ms": 1e3 * busy / (STEPS + 1),
            "decode_tokens_per_second": single.decode_tokens_per_second,
            "batch_decode_tokens_per_second": batch.decode_tokens_per_second,
        }
        print(json.dumps(answer), flush=True)


def with_all_experts(folder: Path, out: Path) -> Path:
    """The model folder `folder` again, at `out`, with graphs that choose every expert; the weights are shared."""
    import onnx

    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    for path in folder.iterdir():
        (out / path.name).hardlink_to(path) if path.name == "weights.bin" else shutil.copyfile(
            path, out / path.name
        )
    graph = out / "decoder.onnx"
    model = onnx.load(graph, load_external_data=False)
    for node in model.graph.node:
        found = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "RoutedMlp":
            found["experts_per_token"].i = found["experts"].i
    graph.write_bytes(model.SerializeToString())
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config["sabiyarn_edge"]["graph_hash"] = hashlib.sha256(graph.read_bytes()).hexdigest()
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return out


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, help="folder for the models, which are made once (3 GB)")
    parser.add_argument("--dtype", default="int8", help="how weights are stored (default int8)")
    parser.add_argument("--rounds", type=count, default=12, help="trials of each (default 12)")
    parser.add_argument("--threads", type=count, help="default: all CPUs this process may use")
    parser.add_argument("--prepare", action="store_true", help="only make the models")
    parser.add_argument("--out", type=out_file, help="write the result as JSON")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    from sabiyarn_edge.system.cpus import usable_cpus

    threads = args.threads or usable_cpus()
    if args.serve:
        serve(args.serve, threads)
        return 0
    if args.work is None:
        parser.error("--work is needed")

    from benchmarks.children import Child
    from benchmarks.models import export
    from sabiyarn_edge.bench.machine import describe_machine
    from sabiyarn_edge.bench.statistics import summary

    rounding = (
        {"rounding": "nearest", "keep_int8": ["lm_head", "wpe", "first"]} if args.dtype == "int4" else {}
    )
    folders = {
        name: export(args.work, shape, args.dtype, dtype=args.dtype, **rounding)
        for name, shape in (("dense", DENSE), ("routed", ROUTED))
    }
    folders["all"] = with_all_experts(folders["routed"], args.work / f"all-experts-{args.dtype}")
    if args.prepare:
        return 0
    children = {
        name: Child("benchmarks", ["routed", "--serve", str(folders[name]), "--threads", str(threads)])
        for name in MODELS
    }
    found: dict[str, list[dict[str, float]]] = {name: [] for name in children}
    for round_index in range(args.rounds):
        for index in range(len(MODELS)):
            name = MODELS[(round_index + index) % len(MODELS)]
            found[name].append(children[name].ask())
    for child in children.values():
        child.close()

    medians = {
        name: {key: float(np.median([answer[key] for answer in answers])) for key in answers[0]}
        for name, answers in found.items()
    }
    ratios = {text: medians[a][key] / medians[b][key] for text, (key, a, b) in RATIOS.items()}
    ratios[f"decode tokens/s, routed, batch of {BATCH} / one row"] = (
        medians["routed"]["batch_decode_tokens_per_second"] / medians["routed"]["decode_tokens_per_second"]
    )
    result: dict[str, Any] = {
        "benchmark": "routed",
        "machine": describe_machine(),
        "dtype": args.dtype,
        "threads": threads,
        "rounds": args.rounds,
        "prompt_tokens": PROMPT_TOKENS,
        "ratios_of_medians": {text: round(ratio, 3) for text, ratio in ratios.items()},
    }
    for name, answers in found.items():
        result[name] = {key: summary([answer[key] for answer in answers]) for key in answers[0]}
    put_out(result, args.out)
    return 0
