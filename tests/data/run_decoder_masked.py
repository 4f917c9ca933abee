"""Run decoder_masked.onnx with onnxruntime and NumPy alone: greedy decoding under a mask of one's own.

    python tests/data/run_decoder_masked.py MODEL_FOLDER --prefix 3 --new 10 5 7 9 2

An example to copy for other languages and runtimes: everything it knows of the model comes from the graph's inputs.
Weights of int8 and int4 need --operators, the path of libsabiyarn_operators.so, a plain library without Python.
The first `--prefix` tokens of the prompt see each other, the others what came before; prints all ids.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnxruntime


def generate(
    folder: Path, ids: list[int], *, prefix: int, new: int, operators: Path | None = None
) -> list[int]:
    """ids and `new` more."""
    options = onnxruntime.SessionOptions()
    if operators is not None:
        options.register_custom_ops_library(str(operators))
    session = onnxruntime.InferenceSession(folder / "decoder_masked.onnx", options)
    past = {}
    for model_input in session.get_inputs():
        if model_input.name.startswith("past_key_values."):
            _, heads, _, head_dim = model_input.shape  # [batch, heads, past, head_dim]
            dtype = {"tensor(float16)": "float16", "tensor(int8)": "int8"}.get(model_input.type, "float32")
            past[model_input.name] = np.zeros((1, heads, 0, head_dim), dtype)

    count = len(ids)
    sees = np.tril(np.ones((count, count), bool))
    sees[:prefix, :prefix] = True
    mask = np.where(sees, 0, -np.inf).astype(np.float32)  # added to the scores of attention

    sequence, fed = list(ids), 0
    while len(sequence) < count + new:
        step = len(sequence) - fed
        logits, *present = session.run(
            None,  # logits, then present.0.key, present.0.value, present.1.key, ...
            {
                "input_ids": np.array([sequence[fed:]], np.int64),
                "position_ids": np.arange(fed, len(sequence))[None],
                "logits_index": np.array([step - 1]),  # of the new positions, the last one
                "attention_mask": mask[None, None],  # [1, 1, sequence, past + sequence]
                **past,
            },
        )
        for name, positions in zip(past, present, strict=True):
            past[name] = np.concatenate([past[name], positions], axis=2)
        fed = len(sequence)
        sequence.append(int(logits[0, -1].argmax()))
        mask = np.zeros((1, len(sequence)), np.float32)  # a new token sees everything
    return sequence


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="exported model folder")
    parser.add_argument("ids", type=int, nargs="+", help="the prompt's token ids")
    parser.add_argument("--prefix", type=int, default=0, help="so many first tokens see each other")
    parser.add_argument("--new", type=int, default=20, help="tokens to generate")
    parser.add_argument("--operators", type=Path, help="library of operators that the graph needs")
    given = parser.parse_args()
    print(*generate(given.folder, given.ids, prefix=given.prefix, new=given.new, operators=given.operators))


if __name__ == "__main__":
    main()
