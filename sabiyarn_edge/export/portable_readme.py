"""The README of portable/: what the graph takes and gives, and a program that decodes with it."""

from __future__ import annotations

from ..model_folder.config import GPTJXConfig
from .portable_graph import IR_VERSION, OPSET

__all__ = ["portable_readme"]

PROMPT_TOKENS, NEW_TOKENS = 4, 12
"""Of the program, where block_size has room for them."""


def portable_readme(config: GPTJXConfig, dtype: str) -> str:
    """The text, with this model's numbers in it.

    Args:
        dtype: how matrices are stored, "float32" or "float16".
    """
    longest = min(PROMPT_TOKENS, config.block_size)
    prompt = [i % config.vocab_size for i in range(1, longest + 1)]
    values = {
        "opset": OPSET,
        "ir_version": IR_VERSION,
        "stored": "float32" if dtype == "float32" else f"{dtype} and widened to float32 by `Cast`",
        "layers": config.n_layer,
        "last_layer": config.n_layer - 1,
        "heads": config.n_heads,
        "head_dim": config.head_dim,
        "width": config.n_embd,
        "vocab_size": config.vocab_size,
        "last_token": config.vocab_size - 1,
        "block_size": config.block_size,
        "last_position": config.block_size - 1,
        "prompts": [prompt, prompt[: (longest + 1) // 2]],
        # The last token that is generated needs no position of its own: nothing is computed from it.
        "new_tokens": min(NEW_TOKENS, config.block_size - longest + 1),
    }
    text = _TEXT
    for name, value in values.items():
        text = text.replace(f"<{name}>", str(value))
    return text


_TEXT = """\
# A GPTJX decoder in standard ONNX operators

`model.onnx` runs under any ONNX runtime that knows opset <opset> (IR version <ir_version>). Its matrices are in
`model.onnx.data`; keep both files in one folder.

The model has <layers> layers, <heads> heads of <head_dim>, width <width>, <vocab_size> tokens and <block_size>
positions. Its matrices are stored as <stored>; all arithmetic is float32.

## Inputs

| name | dtype | shape | meaning |
|---|---|---|---|
| `input_ids` | int64 | `[batch, sequence]` | the new tokens of each row, 0 to <last_token> |
| `position_ids` | int64 | `[batch, sequence]` | the position of each in its row's text, 0 to <last_position> |
| `attention_mask` | float32 | `[batch, 1, sequence, past + sequence]` \
| added to the scores: 0 where a token attends to a key, `-inf` (or -1e9) where it does not |
| `past_key_values.{i}.key`, `past_key_values.{i}.value` | float32 | `[batch, <heads>, past, <head_dim>]` \
| of layer i = 0 to <last_layer>: `present` of the run before; in the first run, past is 0 |

## Outputs

| name | dtype | shape | meaning |
|---|---|---|---|
| `logits` | float32 | `[batch, sequence, <vocab_size>]` | of the token after each new token |
| `present.{i}.key`, `present.{i}.value` | float32 | `[batch, <heads>, past + sequence, <head_dim>]` \
| the past and the new tokens |

- The graph adds no causal mask: `attention_mask` must hide the future. It may show it, for example inside a prefix.
- Rows of unequal lengths are padded on the left. The mask hides the padding's keys, and positions count from the first
  token of the text. What the graph computes for padding has no meaning, but is finite.
- A long prompt may be fed in several runs. Each run's logits take 4 * batch * sequence * <vocab_size> bytes.

## Greedy decoding

With onnxruntime and NumPy; run it in this folder. It prints the token ids of every row.

```python
import numpy as np
import onnxruntime

prompts = <prompts>  # token ids; rows may differ in length
new_tokens = <new_tokens>

session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
inputs = [i for i in session.get_inputs() if i.name.startswith("past_key_values.")]
past = {i.name: np.zeros((len(prompts), i.shape[1], 0, i.shape[3]), np.float32) for i in inputs}
longest = max(len(prompt) for prompt in prompts)
padding = np.array([[longest - len(prompt)] for prompt in prompts])  # [batch, 1]
tokens = np.array([[0] * (longest - len(prompt)) + prompt for prompt in prompts])

done = 0  # tokens whose keys and values are in the past
for _ in range(new_tokens):
    keys = np.arange(tokens.shape[1])  # [past + sequence]
    queries = keys[done:]  # [sequence]
    hidden = (keys > queries[:, None]) | (keys < padding[:, :, None])  # [batch, sequence, past + sequence]
    feeds = {
        "input_ids": tokens[:, done:].astype(np.int64),
        "position_ids": np.maximum(queries - padding, 0).astype(np.int64),
        "attention_mask": np.where(hidden, -np.inf, 0).astype(np.float32)[:, None],
    }
    logits, *present = session.run(None, {**feeds, **past})  # present in the order of past
    past, done = dict(zip(past, present)), tokens.shape[1]
    tokens = np.concatenate([tokens, logits[:, -1:].argmax(axis=-1)], axis=1)

for row, count in zip(tokens, padding[:, 0]):
    print(*row[count:])
```
"""
