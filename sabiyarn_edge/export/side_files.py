"""Files beside the graph: tokenizer and chat template as they are, generation_config.json with the special token ids,
and tasks.json."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..chat.template import SPECIAL_TOKENS_FILE, TEMPLATE_FILE, TOKENIZER_CONFIG_FILE
from ..errors import CheckpointError, InvalidInputError, ModelFolderError
from ..model_folder.config import read_json_object
from ..modeling.checkpoint import is_token_id
from ..options.generation_config import GENERATION_CONFIG_FILE
from ..tasks.family import family_tasks
from ..tasks.task_file import TASKS_FILE, TaskFile
from ..text.tokenizer import TOKENIZER_FILE, Tokenizer

__all__ = ["copy_chat_template", "copy_tokenizer", "write_generation_config", "write_tasks"]

SPECIAL_TOKENS = ("bos", "eos", "pad")

END_TOKENS = ("|end_of_text|", "</s>", "<|endoftext|>")
"""How SabiYarn's vocabularies call the end token, the first that there is; asked when no file names one."""

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
        return [
            f"{source} has no {TOKENIZER_FILE}. {without}, until you copy one into its folder. If the checkpoint uses "
            "that of another model, export with --tokenizer ID|FOLDER."
        ]
    return [
        f"{source} has {', '.join(found)} but no {TOKENIZER_FILE}, the one form that is read here. "
        f"{without}. To make one, run in Python: "
        f"transformers.AutoTokenizer.from_pretrained('{source}').save_pretrained('{source}'); export again."
    ]


def copy_chat_template(source: Path, out: Path) -> None:
    """Copy the checkpoint's chat template as it is, with the files that name the special tokens it uses."""
    for name in (TEMPLATE_FILE, TOKENIZER_CONFIG_FILE, SPECIAL_TOKENS_FILE):
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)


def write_generation_config(
    source: Path, out: Path, vocab_size: int, tokenizer: Path | None = None
) -> list[str]:
    """Write generation_config.json: the checkpoint's own, completed with the special token ids it leaves out.

    Ids are looked for in generation_config.json, then config.json, then, by the names of the tokens, in the
    tokenizer's files; an end token, in the end, by its usual names in the vocabulary.

    Args:
        tokenizer: folder of the tokenizer, if it is another one than `source`: its configs are asked too.

    Returns:
        What the user should know: files that could not be read, ids outside the vocabulary.
    """
    notes: list[str] = []
    own = _read_object(source / GENERATION_CONFIG_FILE, notes)
    config = _read_object(source / "config.json", notes)
    others = [] if tokenizer is None else [GENERATION_CONFIG_FILE, "config.json"]
    lent = [_read_object((tokenizer or source) / name, notes) for name in others]
    named = _named_token_ids(tokenizer or source, notes)
    values = {key: value for key, value in own.items() if key != "transformers_version"}
    for token in SPECIAL_TOKENS:
        key = f"{token}_token_id"
        candidates = [found.get(key) for found in (own, config, *lent, named)]
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


def write_tasks(source: Path, out: Path, given: Path | None, tokenizer: Path | None = None) -> list[str]:
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
    read = _read_tokenizer(tokenizer or source)
    values = family_tasks(lambda token: read is not None and read.token_to_id(token) is not None)
    if values is None:
        return []
    (out / TASKS_FILE).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return [
        f"{TASKS_FILE} has SabiYarn's templates for {', '.join(values['tasks'])}, whose tags the vocabulary has. If "
        f"this checkpoint was trained with others, edit {TASKS_FILE} or export with --tasks."
    ]


def _named_token_ids(source: Path, notes: list[str]) -> dict[str, int]:
    """Ids of the special tokens that tokenizer_config.json or special_tokens_map.json name, or else END_TOKENS."""
    tokenizer = _read_tokenizer(source)
    found: dict[str, int] = {}
    for end in reversed(END_TOKENS):
        number = tokenizer.token_to_id(end) if tokenizer else None
        if number is not None:
            found["eos_token_id"] = number
    for file in (SPECIAL_TOKENS_FILE, TOKENIZER_CONFIG_FILE):
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
        return read_json_object(path)
    except InvalidInputError as error:
        notes.append(f"{error} It was left out.")
        return {}
