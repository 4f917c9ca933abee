"""Measures the accuracy and size of each weight format.

Exports a checkpoint in each format. The export's report compares it with the same checkpoint in float32 on a text:

    perplexity              exp of the mean negative log-probability of each token
    mean_kl_divergence      mean KL divergence of float32's next-token distribution from the export's, nats
    top1_agreement          share of positions with the same likeliest token
    mib                     size of weights.bin, and of SabiYarn-125M's (1024 positions) in the same format
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.arguments import out_file
from benchmarks.nano_checkpoint import unpack_nano
from sabiyarn_edge.bench.machine import describe_machine

INT4 = {"dtype": "int4"}
NONE_KEPT: dict[str, Any] = {**INT4, "keep_int8": []}
VARIANTS: dict[str, dict[str, Any]] = {
    "float32": {"dtype": "float32"},
    "float16": {"dtype": "float16"},
    "int8": {"dtype": "int8"},
    "int8, block 32": {"dtype": "int8", "weight_block_size": 32},
    "int4": INT4,
    "int4, calibration text": {**INT4, "calibration": True},
    "int4, search": {**INT4, "rounding": "search"},
    "int4, nearest": {**INT4, "rounding": "nearest"},
    "int4, lm_head, wpe and first in int8": {**INT4, "keep_int8": ["lm_head", "wpe", "first"]},
    "int4, nothing in int8": NONE_KEPT,
    "int4, nothing in int8, calibration text": {**NONE_KEPT, "calibration": True},
    "int4, nothing in int8, search": {**NONE_KEPT, "rounding": "search"},
    "int4, nothing in int8, nearest": {**NONE_KEPT, "rounding": "nearest"},
}
"""Name -> options of export_model. int4's defaults are gptq on a text that the model writes, and in int8 what wins most
accuracy per byte."""


def full_size_mib(options: dict[str, Any]) -> float:
    """Return the MiB of weights.bin for SabiYarn-125M with 1024 positions, without an export; where the export chooses
    what has 8 bits, those that its matrices take at most."""
    from sabiyarn_edge.export.block_plan import matrix_names
    from sabiyarn_edge.export.decoder_graph import Parameters, build_decoder
    from sabiyarn_edge.export.kept_matrices import most_bytes
    from sabiyarn_edge.export.weight_format import Matrix
    from sabiyarn_edge.export.weight_formats import WeightOptions, make_weight_format
    from sabiyarn_edge.export.weights_writer import plan_weights
    from sabiyarn_edge.modeling import GPTJXConfig

    config = GPTJXConfig(block_size=1024)
    width = config.n_embd
    sizes = {"c_attn": (3, 1), "attn.c_proj": (1, 1), "c_fc": (4, 1), "mlp.c_proj": (1, 4)}
    shapes: dict[str, tuple[int, ...]] = {
        "transformer.wte.weight": (config.vocab_size, width),
        "transformer.wpe.weight": (config.block_size, width),
        "transformer.ln_f.weight": (width,),
    }
    for name in matrix_names(config)[2:]:
        rows, columns = next(size for part, size in sizes.items() if part in name)
        shapes[name] = (rows * width, columns * width)
    for i in range(config.n_layer):
        for norm in ("ln_1.weight", "j.weight", "j.bias", "ln_2.weight"):
            shapes[f"transformer.h.{i}.{norm}"] = (width,)

    keep = options.get("keep_int8")
    weights = WeightOptions(
        dtype=options["dtype"],
        block_size=options.get("weight_block_size"),
        keep_int8=None if keep is None else tuple(keep),
    )

    def unread(name: str = "a matrix") -> Any:
        raise AssertionError(f"{name} is not needed to lay it out")

    if weights.chooses_kept:
        return (
            most_bytes(Matrix(name, (s[0], s[1]), unread) for name, s in shapes.items() if len(s) == 2)
            / 2**20
        )
    graph = build_decoder(Parameters(shapes, unread), config, make_weight_format(weights, config), "float16")
    return plan_weights(graph.tensors.values()).header.end / 2**20


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path, help="UTF-8 file on which all are compared")
    parser.add_argument("calibration", type=Path, help="UTF-8 file of other text")
    parser.add_argument("--checkpoint", type=Path, help="default: the bundled nano")
    parser.add_argument("--out", type=out_file, help="write the result as JSON to this file too")
    args = parser.parse_args()

    from sabiyarn_edge.export import export_model

    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = args.checkpoint or unpack_nano(Path(temporary) / "checkpoint")
        for index, (name, options) in enumerate(VARIANTS.items()):
            given = {**options, **({"calibration": args.calibration} if "calibration" in options else {})}
            report = export_model(
                checkpoint,
                Path(temporary) / str(index),
                kv_cache_dtype="float32",
                evaluate=args.text,
                verify=False,
                progress=False,
                **given,
            )
            assert report.accuracy is not None
            figures = dataclasses.asdict(report.accuracy)
            del figures["text"]
            found[name] = {
                **figures,
                "mib": report.sizes_mib["weights.bin"],
                "sabiyarn_125m_mib": round(full_size_mib(options), 1),
            }
            print(name, json.dumps(found[name]), flush=True)
    result = {
        "benchmark": "weight_accuracy",
        "machine": describe_machine(),
        "model": str(args.checkpoint or "nano"),
        "kv_cache_dtype": "float32",
        "text": args.text.name,
        "weights": found,
    }
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0
