"""Run a portable graph with onnxruntime and NumPy alone: greedy decoding under a prefix mask.

    python tests/data/run_portable.py MODEL_FOLDER/portable --prefix 3 --new 10 5 7 9 2

An example to copy for other languages and runtimes: everything it knows of the model comes from the graph's inputs.
The first `--prefix` tokens of the prompt see each other, the others what came before; prints all ids.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime


def generate(folder: Path, ids: list[int], *, prefix: int, new: int) -> list[int]:
    """ids and `new` more."""
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    past = {}
    for model_input in session.get_inputs():
        if model_input.name.startswith("past_key_values."):
            _, heads, _, head_dim = model_input.shape  # [batch, heads, past, head_dim]
            past[model_input.name] = np.zeros((1, heads, 0, head_dim), np.float32)

    sequence, done = list(ids), 0
    while len(sequence) < len(ids) + new:
        keys = np.arange(len(sequence))
        queries = keys[done:, None]
        sees = (keys <= queries) | ((keys < prefix) & (queries < prefix))
        logits, *present = session.run(
            None,  # logits, then present.0.key, present.0.value, present.1.key, ...
            {
                "input_ids": np.array([sequence[done:]], np.int64),
                "position_ids": np.arange(done, len(sequence), dtype=np.int64)[None],
                "attention_mask": np.where(sees, 0, -np.inf).astype(np.float32)[None, None],
                **past,
            },
        )
        past, done = dict(zip(past, present, strict=True)), len(sequence)
        sequence.append(int(logits[0, -1].argmax()))
    return sequence


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of model.onnx")
    parser.add_argument("ids", type=int, nargs="+", help="the prompt's token ids")
    parser.add_argument("--prefix", type=int, default=0, help="so many first tokens see each other")
    parser.add_argument("--new", type=int, default=20, help="tokens to generate")
    given = parser.parse_args()
    if not 0 <= given.prefix <= len(given.ids):
        parser.error(f"--prefix is {given.prefix}; it must be 0 to {len(given.ids)}, the prompt's tokens.")
    print(*generate(given.folder, given.ids, prefix=given.prefix, new=given.new))


if __name__ == "__main__":
    main()
