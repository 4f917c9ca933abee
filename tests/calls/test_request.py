"""What calls share when their options are decided once, and what they must not share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sabiyarn_edge import EdgeGenerator, GenerationConfig
from sabiyarn_edge.errors import InvalidInputError

PROMPT = [3, 4, 5]


@pytest.fixture(scope="module")
def generator(text_model: Path) -> Iterator[EdgeGenerator]:
    with EdgeGenerator.from_pretrained(text_model, num_threads=1) as generator:
        yield generator


def test_calls_with_one_config_share_what_was_decided(generator: EdgeGenerator) -> None:
    decide = generator._settings.decide
    config = GenerationConfig(max_new_tokens=4, eos_token_id=None)
    first, second = (decide(ids, config, {}).requests[0] for ids in (PROMPT, [7, 8]))
    assert first.options is second.options
    other = decide(PROMPT, config.updated(max_new_tokens=5), {}).requests[0]
    assert (first.options.max_new_tokens, other.options.max_new_tokens) == (4, 5)
    assert decide(PROMPT, config, {}).requests[0].options.max_new_tokens == 4


def test_a_dict_of_options_is_read_anew_each_time(generator: EdgeGenerator) -> None:
    options = {"max_new_tokens": 2, "eos_token_id": None}
    assert generator.generate(PROMPT, options).lengths == [5]
    options["max_new_tokens"] = 3
    assert generator.generate(PROMPT, options).lengths == [6]
    options["max_new_tokens"] = True  # equal to 1, but no integer
    with pytest.raises(InvalidInputError, match="max_new_tokens is True"):
        generator.generate(PROMPT, options)


def test_options_of_one_call_are_not_those_of_the_next(generator: EdgeGenerator) -> None:
    config = GenerationConfig(max_new_tokens=6, eos_token_id=None)
    plain = generator.generate(PROMPT, config).generated
    stopped = generator.generate(PROMPT, config, stopping_criteria=lambda ids, scores: True)
    assert stopped.lengths == [len(PROMPT) + 1]
    assert generator.generate(PROMPT, config, max_new_tokens=1).lengths == [len(PROMPT) + 1]
    with pytest.raises(InvalidInputError, match="no room"):
        generator.generate([3] * generator.max_length, config)
    assert generator.generate(PROMPT, config).generated == plain


def test_each_call_draws_with_a_seed_of_its_own(generator: EdgeGenerator) -> None:
    config = GenerationConfig(max_new_tokens=8, do_sample=True, temperature=5.0, eos_token_id=None)
    drawn = [generator.generate(PROMPT, config) for _ in range(3)]
    seeds = [result.seeds[0] for result in drawn if result.seeds]
    assert len(set(seeds)) == 3
    for seed, result in zip(seeds, drawn, strict=True):
        assert generator.generate(PROMPT, config, seed=seed).generated == result.generated
