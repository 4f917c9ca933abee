"""Token ids of texts that the user gives, and of texts that the model writes itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from ..errors import InvalidInputError
from ..modeling import GPTJXForCausalLM
from ..system.regular_file import read_file_or_pipe
from ..text.tokenizer import TOKENIZER_FILE, Tokenizer
from .finite import check_computed

__all__ = ["cut_to_rows", "evenly_spaced", "read_ids", "read_text", "written_by"]


_LONGEST_TEXT = 2**30  # bytes


def read_text(path: Path, purpose: str) -> str:
    """The text of a file.

    Raises:
        InvalidInputError: it cannot be read, is empty, or is not UTF-8.
    """
    try:
        data = read_file_or_pipe(path, at_most=_LONGEST_TEXT)
    except OSError as error:
        raise InvalidInputError(
            f"cannot read the {purpose} text {path}: {error.strerror or error}."
        ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInputError(
            f"the {purpose} text {path} is not UTF-8: byte {error.start} is {data[error.start]:#04x}. Convert it "
            "to UTF-8."
        ) from error
    if not text.strip():
        raise InvalidInputError(
            f"the {purpose} text {path} is empty. Give text of the kind that the model is for."
        )
    return text


def read_ids(text: str, folder: Path, vocab_size: int) -> torch.Tensor:
    """Ids [n] of a text by the tokenizer in `folder`.

    Raises:
        InvalidInputError: the folder has no tokenizer, its ids do not fit the model, or the text is one token.
    """
    path = folder / TOKENIZER_FILE
    if not path.is_file():
        raise InvalidInputError(
            f"a text was given, but the checkpoint {folder} has no {TOKENIZER_FILE} to make ids of it. Put one "
            "there, or leave the text out: the model then writes its own."
        )
    ids = Tokenizer.from_file(path).encode(text)
    if len(ids) < 2:
        raise InvalidInputError(
            f"the text is {len(ids)} token long; at least 2 are needed. Give a longer one."
        )
    if max(ids) >= vocab_size:
        raise InvalidInputError(
            f"{path} makes id {max(ids)} of the text, but vocab_size is {vocab_size}: it belongs to another model."
        )
    return torch.tensor(ids)


def cut_to_rows(ids: torch.Tensor, length: int) -> list[torch.Tensor]:
    """Consecutive pieces of ids [n], [1, length] each; the last one may be shorter, but not a single token."""
    pieces = [ids[begin : begin + length] for begin in range(0, len(ids), length)]
    return [piece[None] for piece in pieces if len(piece) > 1]


def evenly_spaced(texts: Sequence[torch.Tensor], tokens: int) -> list[torch.Tensor]:
    """So many of the texts that they have at most `tokens` tokens (one text at least), from all over: a file may go
    through one language after the other."""
    longest = max((text.numel() for text in texts), default=1)
    count = min(len(texts), max(tokens // longest, 1))
    return [texts[i * len(texts) // count] for i in range(count)]


def written_by(
    model: GPTJXForCausalLM,
    *,
    rows: int,
    length: int,
    seed: int,
    progress: Callable[[int], object] = lambda n: None,
) -> torch.Tensor:
    """Ids [rows, length] that the model samples from its own distribution, each row from a random first token.

    Args:
        rows: at most the model's max_batch_size.
        length: at most the model's block_size.
        progress: told the number of tokens after each step; rows * length in all.

    Raises:
        CheckpointError: the model gives NaN or infinite logits.
    """
    generator = torch.Generator().manual_seed(seed)
    new = torch.randint(model.config.vocab_size, (rows, 1), generator=generator)
    ids = [new]
    with torch.inference_mode():
        model.clear_kv_cache()
        for _ in range(length - 1):
            logits = model(new, use_cache=True, logits_to_keep=1).logits[:, -1]
            check_computed(logits, "logits for text that it writes")
            new = torch.multinomial(logits.softmax(dim=-1), 1, generator=generator)
            ids.append(new)
            progress(rows)
        model.free_kv_cache()
    progress(rows)
    return torch.cat(ids, dim=1)
