from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import tokenizers
from tokenizers import decoders, models

from sabiyarn_edge._core import DecodeOptions
from sabiyarn_edge._core_testing import philox4x32
from sabiyarn_edge.calls.decode_options import (
    DEFAULT_MAX_NEW_TOKENS,
    decide_seeds,
    decode_options,
    decode_state,
    max_new_tokens,
)
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.options.generation_config import GenerationConfig
from sabiyarn_edge.text.tokenizer import Tokenizer
from tests.options.test_generation_config import SAMPLING
from tests.toy_tokenizers import toy_tokenizer


def options_for(prompts=((1, 2, 3),), max_positions=1024, tokenizer=None, **options):
    config = GenerationConfig(**options)
    return decode_options(
        config,
        max_new_tokens=max_new_tokens(config, max(map(len, prompts)), max_positions),
        seeds=decide_seeds(config, len(prompts)),
        vocab_size=400,
        tokenizer=tokenizer,
    )


def test_every_option_reaches_the_core():
    given = {name: value for name, value in SAMPLING.items() if name != "stop_strings"}
    del given["include_stop_string"]
    native = options_for(prompts=[[1], [2]], **given)
    config = GenerationConfig(**given)
    renamed = {"max_time": "max_time_s", "output_scores": "return_scores"}
    not_the_cores = {
        "seed", "pad_token_id", "bos_token_id", "max_length",
        "prompt_lookup_num_tokens", "max_matching_ngram_size", "stop_strings", "include_stop_string",
        "json_schema", "json_object", "regex", "choices", "grammar",
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


def test_messages_name_the_prompt():
    with pytest.raises(InvalidInputError, match="prompt 3 has 4 tokens and max_new_tokens is 7: 11"):
        max_new_tokens(GenerationConfig(max_new_tokens=7), 4, 10, "prompt 3")


# --- seeds, stop strings ---


def seeds_for(num_prompts, returns=1, **options):
    config = GenerationConfig(do_sample=True, num_return_sequences=returns, **options)
    return decide_seeds(config, num_prompts)


def test_without_a_seed_every_row_draws_its_own():
    seeds = seeds_for(4, returns=3) + seeds_for(1)
    assert len(set(seeds)) == 13


def test_one_seed_gives_each_row_its_own_and_the_first_itself():
    seeds = seeds_for(3, returns=2, seed=2**64 - 1)
    assert seeds[0] == 2**64 - 1
    assert seeds == [derived(2**64 - 1, row) for row in range(6)]
    assert len(set(seeds)) == 6
    assert seeds_for(1, seed=2**64 - 1) == seeds[:1]  # alone as first in a batch


def test_a_list_gives_each_prompt_its_seed():
    assert seeds_for(2, seed=[7, 8]) == [7, 8]
    assert seeds_for(2, returns=2, seed=[7, 8]) == [7, derived(7, 1), 8, derived(8, 1)]
    with pytest.raises(InvalidInputError, match="seed holds 3 seeds for 2 prompts"):
        seeds_for(2, seed=[7, 8, 9])


def derived(seed, row):
    """Philox4x32-10 keyed by the seed, at a counter that no draw uses; its first two words."""
    if row == 0:
        return seed
    low, high, *_ = philox4x32([row, 0, 0, 1], [seed & 0xFFFFFFFF, seed >> 32])
    return high << 32 | low


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
