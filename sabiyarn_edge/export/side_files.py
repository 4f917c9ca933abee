"""Files beside the graph: tokenizer and chat template as they are, generation_config.json with the special token ids,
and tasks.json."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, ModelFolderError
from ..modeling.checkpoint import is_token_id
from ..options.generation_config import GENERATION_CONFIG_FILE
from ..tasks.family import family_tasks
from ..tasks.task_file import TASKS_FILE, TaskFile
from ..text.tokenizer import TOKENIZER_FILE, Tokenizer

__all__ = ["copy_chat_template", "copy_tokenizer", "write_generation_config", "write_tasks"]

SPECIAL_TOKENS = ("bos", "eos", "pad")

CHAT_TEMPLATE_FILES = ("chat_template.jinja", "tokenizer_config.json")
"""Where a chat template may stand; the second also names the special tokens that it writes."""

_SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_SLOW_TOKENIZER = (*_SENTENCEPIECE, "vocab.json", "vocab.txt", "tokenizer_config.json")


def copy_tokenizer(source: Path, out: Path, vocab_size: int) -> list[str]:
    """Copy tokenizer.json as it is.

    Returns:
        What the user should know: there is none, or it has more tokens than the model.

    Raises:
        CheckpointError: it is damaged.
    """
    tokenizer = _read_tokenizer(source)
    if tokenizer is not None:
        shutil.copyfile(source / TOKENIZER_FILE, out / TOKENIZER_FILE)
        tokens = tokenizer.vocab_size
        if tokens <= vocab_size:
            return []
        return [
            f"{source / TOKENIZER_FILE} has {tokens} tokens, but vocab_size is {vocab_size}: text that needs the "
            "others cannot be given to the model. Is it this checkpoint's tokenizer?"
        ]
    without = "The exported model takes and gives token ids only"
    found = [name for name in _SLOW_TOKENIZER if (source / name).is_file()]
    if not found:
        return [f"{source} has no {TOKENIZER_FILE}. {without}, until you copy one into its folder."]
    return [
        f"{source} has {', '.join(found)} but no {TOKENIZER_FILE}, the one form that is read here. "
        f"{without}. To make one, run in Python: "
        f"transformers.AutoTokenizer.from_pretrained('{source}').save_pretrained('{source}'); export again."
    ]


def copy_chat_template(source: Path, out: Path) -> None:
    """Copy the files of the chat template as they are, where there are any."""
    for name in CHAT_TEMPLATE_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def write_generation_config(source: Path, out: Path, vocab_size: int) -> list[str]:
    """Write generation_config.json: the checkpoint's own, completed with the special token ids it leaves out.

    Ids are looked for in generation_config.json, then config.json, then, by the names of the tokens, in the
    tokenizer's files.

    Returns:
        What the user should know: files that could not be read, ids outside the vocabulary.
    """
    notes: list[str] = []
    own = _read_object(source / GENERATION_CONFIG_FILE, notes)
    config = _read_object(source / "config.json", notes)
    named = _named_token_ids(source, notes)
    values = {key: value for key, value in own.items() if key != "transformers_version"}
    for token in SPECIAL_TOKENS:
        key = f"{token}_token_id"
        candidates = [found.get(key) for found in (own, config, named)]
        many = token == "eos"  # a model may have several end tokens, but only one of the others
        known = [value for value in candidates if is_token_id(value, vocab_size, many=many)]
        wrong = [value for value in candidates if value is not None and value not in known]
        values.pop(key, None)
        if known:
            values[key] = known[0]
        if wrong:
            notes.append(f"{key} {wrong[0]!r} of {source} is not an id below {vocab_size} and was left out.")
    if "eos_token_id" not in values:
        notes.append(
            f"{source} names no end token (eos_token_id), so generation stops at max_new_tokens only. "
            f"Add it to {GENERATION_CONFIG_FILE} if the model has one."
        )
    (out / GENERATION_CONFIG_FILE).write_text(
        json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return notes


def write_tasks(source: Path, out: Path, given: Path | None) -> list[str]:
    """Write tasks.json: the file that was given, the checkpoint's own, or the family's tasks whose tags there are.

    Returns:
        What the user should know: which tasks there are, and where they come from.

    Raises:
        InvalidInputError: a file is not in the form of tasks.json; names the line.
    """
    own = source / TASKS_FILE
    path = given if given is not None else own if own.is_file() else None
    if path is not None:
        TaskFile.read(path)
        shutil.copyfile(path, out / TASKS_FILE)
        return []
    tokenizer = _read_tokenizer(source)
    values = family_tasks(lambda token: tokenizer is not None and tokenizer.token_to_id(token) is not None)
    if values is None:
        return []
    (out / TASKS_FILE).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return [
        f"{TASKS_FILE} has SabiYarn's templates for {', '.join(values['tasks'])}, whose tags the vocabulary has. If "
        f"this checkpoint was trained with others, edit {TASKS_FILE} or export with --tasks."
    ]


def _named_token_ids(source: Path, notes: list[str]) -> dict[str, int]:
    """Ids of the special tokens that tokenizer_config.json or special_tokens_map.json name."""
    tokenizer = _read_tokenizer(source)
    found: dict[str, int] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        values = _read_object(source / file, notes)
        for token in SPECIAL_TOKENS:
            content = values.get(f"{token}_token")
            if isinstance(content, Mapping):  # an AddedToken, written out
                content = content.get("content")
            number = tokenizer.token_to_id(content) if tokenizer and isinstance(content, str) else None
            if number is not None:
                found[f"{token}_token_id"] = number
    return found


def _read_tokenizer(source: Path) -> Tokenizer | None:
    path = source / TOKENIZER_FILE
    if not path.is_file():
        return None
    try:
        return Tokenizer.from_file(path)
    except ModelFolderError as error:
        raise CheckpointError(f"{error} Or remove it, to export without.") from error


def _read_object(path: Path, notes: list[str]) -> dict[str, Any]:
    """The JSON object of a file, empty when there is no such file."""
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        notes.append(f"{path} could not be read ({error}) and was left out.")
        return {}
    return values if isinstance(values, dict) else {}
