"""Measures the accuracy and memory of each KV cache type.

Exports a checkpoint with a cache of each type and runs every line of a text, one document each, through all of them.
Then it runs JOINED documents as one text, in random order: a model that knows each of them is less certain there. All
types are compared with the float32 cache, which rounds nothing, position by position:

    perplexity      exp of the mean negative log-probability of each token except a document's first
    kl_divergence   mean KL divergence of the float32 cache's next-token distribution from this one's, nats
    top1_agreement  share of positions with the same likeliest token

int8 is exported twice: with scales from CALIBRATION, and with scales from a text that the model writes.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.accuracy import logits_of
from benchmarks.arguments import out_file
from benchmarks.nano_checkpoint import unpack_nano
from benchmarks.output import put_out
from sabiyarn_edge.bench.machine import describe_machine
from sabiyarn_edge.export.log_probs import log_softmax

JOINED = 6


def joined(documents: list[list[int]]) -> list[list[int]]:
    """Join documents in random order, JOINED in each text."""
    order = np.random.default_rng(0).permutation(len(documents))
    groups = [order[start : start + JOINED] for start in range(0, len(order), JOINED)]
    return [[token for index in group for token in documents[index]] for group in groups]


def compare(decoders: dict[str, Any], documents: list[list[int]]) -> dict[str, dict[str, float]]:
    """Return the three figures of each, compared with the first."""
    sums = {name: np.zeros(3) for name in decoders}  # negative log-probability, KL divergence, agreements
    for ids in documents:
        expected = None
        for name, decoder in decoders.items():
            found = log_softmax(logits_of(decoder, ids))
            expected = found if expected is None else expected
            sums[name] += (
                -found[np.arange(len(ids) - 1), ids[1:]].sum(),
                (np.exp(expected) * (expected - found)).sum(),
                (expected.argmax(axis=1) == found.argmax(axis=1)).sum(),
            )
    positions = sum(map(len, documents))
    return {
        name: {
            "perplexity": float(np.exp(loss / (positions - len(documents)))),
            "kl_divergence": float(divergence / positions),
            "top1_agreement": float(agreed / positions),
        }
        for name, (loss, divergence, agreed) in sums.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("text", type=Path, help="UTF-8 file, one document per line")
    parser.add_argument("calibration", type=Path, help="UTF-8 file of other text")
    parser.add_argument("--checkpoint", type=Path, help="default: the bundled nano")
    parser.add_argument("--out", type=out_file, help="write the result as JSON to this file too")
    args = parser.parse_args()

    from sabiyarn_edge.export import export_model
    from sabiyarn_edge.export.plain_decoder import PlainDecoder
    from sabiyarn_edge.model_folder.config import ModelConfig
    from sabiyarn_edge.text.tokenizer import Tokenizer

    variants: dict[str, dict[str, Any]] = {
        "float32": {"kv_cache_dtype": "float32"},
        "float16": {"kv_cache_dtype": "float16"},
        "int8, calibration text": {"kv_cache_dtype": "int8", "calibration": args.calibration},
        "int8, the model's own text": {"kv_cache_dtype": "int8"},
    }
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = args.checkpoint or unpack_nano(Path(temporary) / "checkpoint")
        tokenizer = Tokenizer.from_file(checkpoint / "tokenizer.json")
        lines = args.text.read_text(encoding="utf-8").splitlines()
        decoders, reports = {}, {}
        for index, (name, options) in enumerate(variants.items()):
            folder = Path(temporary) / str(index)
            reports[name] = export_model(checkpoint, folder, dtype="float32", progress=False, **options)
            config = ModelConfig.load(folder)
            capacity = config.gptjx.block_size + 1
            decoders[name] = PlainDecoder(folder, config, rows=1, capacity=capacity)
        limit = reports["float32"].block_size
        documents = [ids for ids in map(tokenizer.encode, lines) if len(ids) > 1]
        texts = {
            what: [ids[:limit] for ids in some]
            for what, some in (("documents", documents), (f"{JOINED} joined", joined(documents)))
        }
        figures = {what: compare(decoders, some) for what, some in texts.items()}
        result = {
            "benchmark": "kv_cache_accuracy",
            "machine": describe_machine(("sabiyarn-edge", "onnxruntime", "numpy", "torch")),
            "model": str(args.checkpoint or "nano"),
            "weights": "float32",
            "positions": {what: sum(map(len, some)) for what, some in texts.items()},
            "caches": {
                name: {
                    "bytes_per_token": reports[name].kv_bytes_per_token,
                    "calibration_tokens": reports[name].calibration_tokens,
                    **{what: figures[what][name] for what in texts},
                }
                for name in variants
            },
        }
    put_out(result, args.out)
    return 0
