"""Generates under many random JSON schemas, and checks every output with the package jsonschema.

    python -m tests.campaigns.schemas [--schemas 200] [--first 0]

Each schema holds greedy decoding, two draws and three beams, on nano and on a random model of 52050 entries whose
tokenizer is made up. An output that ended by itself must parse and be valid, and one that was cut must say so. Prints
one JSON object per model, with the outputs by finish reason; ends with an error at the first output that does not fit.
Needs torch.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.constraints import VOCAB_SIZE, made_up_tokenizer
from sabiyarn_edge import EdgeGenerator
from tests.constraints.proof import prove
from tests.export.models import export_tiny

__all__ = ["random_model"]

MAX_NEW_TOKENS = 300
SHAPE = {"vocab_size": VOCAB_SIZE, "block_size": 512, "n_layer": 1}


def random_model(folder: Path) -> Path:
    """A model folder of SabiYarn's number of entries, with a byte-level tokenizer."""
    exported = export_tiny(folder, SHAPE, verify=False)
    made_up_tokenizer().backend.save(str(exported.folder / "tokenizer.json"))
    settings = json.dumps({"eos_token_id": 0})
    (exported.folder / "generation_config.json").write_text(settings, encoding="utf-8")
    return exported.folder


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--schemas", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="seed of the first schema")
    args = parser.parse_args()
    seeds = range(args.first, args.first + args.schemas)
    with tempfile.TemporaryDirectory() as folder:
        for name, path in {"nano": "nano", "random": random_model(Path(folder))}.items():
            generator = EdgeGenerator.from_pretrained(path, num_threads=1)
            reasons = prove(generator, seeds, prompt="<eng> Everyone has", max_new_tokens=MAX_NEW_TOKENS)
            print(json.dumps({"model": name, "schemas": len(seeds), "outputs": dict(reasons)}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
