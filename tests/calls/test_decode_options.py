from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models

from sabiyarn_edge._core import DecodeOptions
from sabiyarn_edge.calls.decode_options import DEFAULT_MAX_NEW_TOKENS, decode_options, decode_state
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.options.generation_config import GenerationConfig
from sabiyarn_edge.text.tokenizer import Tokenizer
from tests.options.test_generation_config import SAMPLING
from tests.toy_tokenizers import toy_tokenizer


def options_for(prompts=((1, 2, 3),), max_positions=1024, tokenizer=None, **options):
    return decode_options(
        GenerationConfig(**options),
        prompts=prompts,
        vocab_size=400,
        max_positions=max_positions,
        tokenizer=tokenizer,
    )


def test_every_option_reaches_the_core():
    given = {name: value for name, value in SAMPLING.items() if name != "stop_strings"}
    del given["include_stop_string"]
    native = options_for(prompts=[[1], [2]], **given)
    config = GenerationConfig(**given)
    renamed = {"max_time": "max_time_s", "seed": "seeds", "output_scores": "return_scores"}
    not_the_cores = {
        "pad_token_id", "bos_token_id", "max_length",
        "prompt_lookup_num_tokens", "max_matching_ngram_size", "stop_strings", "include_stop_string",
    }  # fmt: skip
    for field in dataclasses.fields(GenerationConfig):
        if field.name not in not_the_cores:
            found = getattr(native, renamed.get(field.name, field.name))
            assert plain(found) == plain(getattr(config, field.name)), field.name
    assert options_for(min_length=3).min_length == 3  # beside min_new_tokens it changes nothing


def plain(value):
    """Lists for tuples and one id alike."""
    if isinstance(value, int) and not isinstance(value, bool):
        return [value]
    return as_lists(value)


def as_lists(value):
    return [as_lists(item) for item in value] if isinstance(value, list | tuple) else value


def test_defaults_are_the_cores_own_but_for_length_and_seed():
    native, default = options_for(seed=0, max_new_tokens=7), DecodeOptions(max_new_tokens=7)
    names = [name for name in dir(default) if not name.startswith("_")]
    assert {name for name in names if plain(getattr(native, name)) != plain(getattr(default, name))} == set()


# --- lengths ---


@pytest.mark.parametrize(
    ("options", "max_positions", "expected"),
    [
        ({}, 1024, DEFAULT_MAX_NEW_TOKENS),
        ({}, 100, 97),
        ({"min_new_tokens": 300}, 1024, 300),
        ({"max_new_tokens": 97}, 100, 97),
        ({"max_new_tokens": 5, "min_new_tokens": 5}, 100, 5),
        ({"max_length": 50}, 100, None),
    ],
)
def test_the_number_of_new_tokens(options, max_positions, expected):
    native = options_for(max_positions=max_positions, **options)
    assert native.max_new_tokens == expected
    assert native.max_length == options.get("max_length")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_new_tokens": 98},
            "the prompt has 3 tokens and max_new_tokens is 98: 101 positions, but .* is 100.* 97",
        ),
        (
            {"min_new_tokens": 98},
            "the prompt has 3 tokens and min_new_tokens is 98: 101 positions, but .* is 100.* 97",
        ),
        ({"max_length": 101}, "max_length is 101, but .* is 100"),
        (
            {"max_length": 3},
            "the prompt has 3 tokens and max_length, which counts them, is 3: no new token fits",
        ),
    ],
)
def test_lengths_that_do_not_fit_are_told_with_their_numbers(options, message):
    with pytest.raises(InvalidInputError, match=message):
        options_for(max_positions=100, **options)


def test_the_longest_prompt_counts():
    assert options_for(prompts=[[1], [1, 2, 3, 4]], max_positions=10).max_new_tokens == 6
    with pytest.raises(
        InvalidInputError, match="the longest prompt has 4 tokens and max_new_tokens is 7: 11"
    ):
        options_for(prompts=[[1], [1, 2, 3, 4]], max_positions=10, max_new_tokens=7)


# --- seeds, stop strings, prompt lookup ---


def test_without_a_seed_each_call_has_another_one():
    assert options_for().seeds != options_for().seeds


def test_seeds_are_one_or_one_per_prompt():
    assert plain(options_for(seed=2**64 - 1).seeds) == [2**64 - 1]
    assert plain(options_for(prompts=[[1], [2]], seed=[7, 8]).seeds) == [7, 8]
    with pytest.raises(InvalidInputError, match="seed holds 3 seeds for 2 prompts"):
        options_for(prompts=[[1], [2]], seed=[7, 8, 9])


def test_stop_strings_reach_the_core_as_utf8():
    tokenizer = toy_tokenizer("byte-level")
    native = options_for(tokenizer=tokenizer, stop_strings=["ẹ́", "\n"])
    assert list(native.stop_strings) == ["ẹ́".encode(), b"\n"]
    assert native.token_bytes is tokenizer.native_bytes(400)
    assert options_for(tokenizer=tokenizer).token_bytes is None  # the table is made when it is needed


def test_stop_strings_end_at_tokens_whose_ids_lie_behind_a_gap():
    backend = tokenizers.Tokenizer(models.WordLevel({"a": 0, "b": 1, "stop": 9}, unk_token="a"))
    backend.decoder = decoders.Fuse()
    state = decode_state(
        GenerationConfig(stop_strings="stop", max_new_tokens=5),
        prompts=[[0]],
        vocab_size=10,
        max_positions=None,
        tokenizer=Tokenizer(backend),
    )
    state.advance(np.eye(10, dtype=np.float32)[9:])  # token 9 is the likeliest
    assert (state.sequences(), state.finish_reasons()) == ([[0, 9]], ["stop"])


def test_stop_strings_need_a_tokenizer():
    with pytest.raises(InvalidInputError, match="stop_strings need a tokenizer"):
        options_for(stop_strings=["a"])


def test_prompt_lookup_takes_one_prompt():
    with pytest.raises(InvalidInputError, match="one prompt at a time, but there are 2"):
        options_for(prompts=[[1], [2]], prompt_lookup_num_tokens=4)
