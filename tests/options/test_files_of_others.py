"""generation_config.json and tokenizer.json as people have them: what nobody reads is no reason to refuse them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from sabiyarn_edge.errors import InvalidInputError, ModelFolderError
from sabiyarn_edge.options.generation_config import GenerationConfig
from sabiyarn_edge.text.tokenizer import Tokenizer


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"do_sample": False, "temperature": 0.0}, GenerationConfig()),
        ({"temperature": 0, "top_p": 0.0, "top_k": -1, "typical_p": 2.0}, GenerationConfig()),
        ({"pad_token_id": -1, "eos_token_id": 3}, GenerationConfig(eos_token_id=3)),
        ({"bos_token_id": -1, "eos_token_id": -1}, GenerationConfig()),
        ({"do_sample": True, "temperature": 0.5}, GenerationConfig(do_sample=True, temperature=0.5)),
    ],
)
def test_values_that_nobody_reads_are_not_looked_at(
    tmp_path: Path, values: dict[str, Any], expected: GenerationConfig
) -> None:
    assert GenerationConfig.from_dict(values) == expected
    # As editors on Windows write it, with a byte order mark.
    (tmp_path / "generation_config.json").write_text(json.dumps(values), encoding="utf-8-sig")
    assert GenerationConfig.load(tmp_path) == expected


def test_what_is_left_out_is_quoted_in_short() -> None:
    with pytest.warns(UserWarning, match="left out") as caught:
        GenerationConfig.from_dict({"guidance_scale": "x" * 10**5, "y" * 10**5: 1})
    assert len(str(caught[0].message)) < 500


@pytest.mark.parametrize(
    "values",
    [
        {"do_sample": True, "temperature": 0.0},
        {"temperature": "0.0"},
        {"pad_token_id": -2},
        {"eos_token_id": [-1]},
        {"do_sample": 0, "temperature": 0.0},
    ],
)
def test_values_that_somebody_reads_are(tmp_path: Path, values: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError):
        GenerationConfig.from_dict(values)
    (tmp_path / "generation_config.json").write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ModelFolderError):
        GenerationConfig.load(tmp_path)


def test_a_call_is_looked_at_closely() -> None:
    for options in ({"temperature": 0.0}, {"pad_token_id": -1}):
        with pytest.raises(InvalidInputError):
            GenerationConfig(**options)


def test_a_wordpiece_tokenizer_is_read(tmp_path: Path) -> None:
    vocab = {token: index for index, token in enumerate(["[UNK]", "ki", "##ni", "o"])}
    theirs = tokenizers.Tokenizer(tokenizers.models.WordPiece(vocab, unk_token="[UNK]"))
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    theirs.decoder = tokenizers.decoders.WordPiece()
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.from_file(tmp_path / "tokenizer.json")
    assert ours.encode("kini o") == theirs.encode("kini o").ids == [1, 2, 3]
    assert ours.decode([1, 2, 3]) == "kini o"
