"""A prompt that begins like the last text pays only for the rest, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.engine.prefix_cache import common_prefix
from sabiyarn_edge.errors import InvalidInputError


@pytest.fixture
def generator(text_model: Path) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(text_model, num_threads=1)


def test_a_conversation_pays_for_what_is_new(generator: EdgeGenerator, forgetful: EdgeGenerator) -> None:
    text: list[int] = [1, 2, 3]
    computed = []
    for turn in ([], [40, 41], [50], [60, 61, 62]):
        text = text + turn
        result = generator.generate(text, max_new_tokens=5)
        expected = forgetful.generate(text, max_new_tokens=5)
        assert result.sequences.tolist() == expected.sequences.tolist()
        assert expected.timings.reused_tokens == 0
        assert result.timings.prefill_tokens + result.timings.reused_tokens == len(text)
        computed.append(result.timings.prefill_tokens)
        text = result.sequences[0].tolist()
    assert computed == [3, 1 + 2, 1 + 1, 1 + 3]  # the last generated token had not been run yet


def test_the_same_prompt_again_computes_its_last_token(generator: EdgeGenerator) -> None:
    first = generator.generate([5, 6, 7, 8], max_new_tokens=3)
    again = generator.generate([5, 6, 7, 8], max_new_tokens=3)
    assert again.sequences.tolist() == first.sequences.tolist()
    assert (again.timings.prefill_tokens, again.timings.reused_tokens) == (1, 3)


@pytest.mark.parametrize(
    ("options", "reused"),
    [
        ({"num_beams": 3}, 5 + 9),
        ({"do_sample": True, "num_return_sequences": 3, "seed": 4}, 5 + 9),
        ({"do_sample": True, "seed": 4}, 5 + 9),
        ({"prompt_lookup_num_tokens": 4}, 5 + 9),
    ],
    ids=["beams", "returns", "sampled", "lookup"],
)
def test_every_mode_leaves_a_prefix(
    generator: EdgeGenerator, forgetful: EdgeGenerator, options: dict[str, Any], reused: int
) -> None:
    prompt = [9, 8, 7, 9, 8]
    first = generator.generate(prompt, max_new_tokens=10, **options)
    assert (
        first.sequences.tolist()
        == forgetful.generate(prompt, max_new_tokens=10, **options).sequences.tolist()
    )
    longer = [*first.sequences[0].tolist(), 33]
    for _ in range(2):  # also into this mode
        found = generator.generate(longer, max_new_tokens=10, **options)
        expected = forgetful.generate(longer, max_new_tokens=10, **options)
        assert found.sequences.tolist() == expected.sequences.tolist()
        assert found.timings.reused_tokens == reused
        reused = 15


@given(st.data())
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_series_of_calls_is_as_if_each_was_the_first(
    text_model: Path, forgetful: EdgeGenerator, data: st.DataObject
) -> None:
    generator = shared(text_model)
    text = [1]
    for _ in range(data.draw(st.integers(1, 5), "calls")):
        cut = data.draw(st.integers(1, len(text)), "cut")
        text = text[:cut] + data.draw(st.lists(st.integers(0, 9), min_size=0, max_size=8), "new")
        options: dict[str, Any] = data.draw(
            st.sampled_from(
                [
                    {},
                    {"num_beams": 2},
                    {"do_sample": True, "seed": 1, "num_return_sequences": 2},
                    {"prompt_lookup_num_tokens": 3},
                    {"eos_token_id": [3, 5, 90]},
                    {"overflow": "slide", "keep_tokens": 2, "max_new_tokens": 120},
                ]
            ),
            "options",
        )
        options = {"max_new_tokens": 6, **options}
        if "overflow" not in options:
            text = text[:80]
        batched = "prompt_lookup_num_tokens" not in options and data.draw(st.booleans(), "batched")
        inputs = [text, [4, 4]] if batched else text
        found = generator.generate(inputs, **options)
        expected = forgetful.generate(inputs, **options)
        assert found.sequences.tolist() == expected.sequences.tolist()
        text = found.sequences[0].tolist()[: found.lengths[0]]


_shared: dict[Path, EdgeGenerator] = {}


def shared(folder: Path) -> EdgeGenerator:
    """One generator for all examples: what one leaves behind must not disturb the next."""
    if folder not in _shared:
        _shared[folder] = EdgeGenerator.from_pretrained(folder, num_threads=1)
    return _shared[folder]


def test_a_slid_text_is_continued_from_what_is_kept(text_model: Path) -> None:
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1, overflow="slide", keep_tokens=4)
    first = generator.generate([1, 2, 3], max_new_tokens=150)
    longer = [*first.sequences[0].tolist(), 7]
    found = generator.generate(longer, max_new_tokens=30)
    expected = generator.generate(longer, max_new_tokens=30, reuse_prefix=False)
    assert found.sequences.tolist() == expected.sequences.tolist()
    assert found.timings.prefill_tokens == 2
    assert found.timings.reused_tokens > 40


def test_a_wrapped_ring_goes_on_with_its_own_text_only(text_model: Path) -> None:
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1, kv_window=16, num_sink_tokens=2)
    prompt = list(range(1, 13))
    generator.generate(prompt, max_new_tokens=4)
    first = generator.generate(prompt, max_new_tokens=60)
    assert first.timings.reused_tokens == 11  # not yet wrapped: the ring has 64 slots
    longer = [*first.sequences[0].tolist(), 5]
    second = generator.generate(longer, max_new_tokens=6)
    assert (second.timings.reused_tokens, second.timings.prefill_tokens) == (71, 2)
    expected = generator.generate(longer, max_new_tokens=6, reuse_prefix=False)
    assert second.sequences.tolist() == expected.sequences.tolist()
    assert (
        generator.generate(longer, max_new_tokens=1).timings.reused_tokens == 0
    )  # the text behind was computed too
    beams = generator.generate(prompt, max_new_tokens=60, num_beams=2)
    assert beams.timings.reused_tokens == 0
    assert generator.generate([*prompt, 7], max_new_tokens=1).timings.reused_tokens == 0


def test_prompts_of_one_call_are_computed_once_as_far_as_they_begin_alike(
    generator: EdgeGenerator, forgetful: EdgeGenerator
) -> None:
    head = [3 * i % 90 for i in range(30)]
    prompts = [[*head, 1, 2, 3], [*head, 4], [*head, 1, 5, 6]]
    expected = forgetful.generate(prompts, max_new_tokens=8)
    assert expected.timings.prefill_tokens == 97
    found = generator.generate(prompts, max_new_tokens=8)
    assert found.sequences.tolist() == expected.sequences.tolist()
    # The third prompt waits for the first one, with which it has a token more in common than the second has.
    assert (found.timings.prefill_tokens, found.timings.reused_tokens) == (33 + 1 + 2, 30 + 31)
    again = generator.generate(prompts[::-1], max_new_tokens=8)  # what they have in common is still there
    assert again.sequences.tolist() == expected.sequences[::-1].tolist()
    assert again.timings.reused_tokens >= 3 * 30
    assert again.timings.prefill_tokens + again.timings.reused_tokens == 97
    beams = {"num_beams": 3, "max_new_tokens": 8}
    assert generator.generate(prompts, **beams).sequences.tolist() == (
        forgetful.generate(prompts, **beams).sequences.tolist()
    )


def test_a_stream_that_is_closed_early_is_continued(
    generator: EdgeGenerator, forgetful: EdgeGenerator
) -> None:
    expected = forgetful.generate([1, 2, 3], max_new_tokens=20).sequences[0].tolist()
    with generator.stream([1, 2, 3], max_new_tokens=20) as stream:
        for _ in range(8):
            next(stream)
    found = generator.generate(expected[:13], max_new_tokens=10)
    assert found.sequences[0].tolist() == expected
    assert found.timings.reused_tokens >= 3 + 7  # the engine may have been ahead of the reader


def test_what_failed_or_was_cleared_is_not_continued(generator: EdgeGenerator) -> None:
    prompt = [1, 2, 3, 4]

    def reused() -> int:
        return generator.generate(prompt, max_new_tokens=2).timings.reused_tokens

    assert [reused(), reused()] == [0, 3]
    generator.clear_kv_cache()
    assert [reused(), reused()] == [0, 3]
    generator.free_kv_cache()
    assert [reused(), reused()] == [0, 3]

    def fail(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        generator.generate(prompt, logits_processor=fail)
    assert [reused(), reused()] == [0, 3]
    generator.generate([prompt, [9, 9]], max_new_tokens=2)
    assert [reused(), reused()] == [0, 3]
    assert generator.generate(prompt, max_new_tokens=2, reuse_prefix=False).timings.reused_tokens == 0
    assert reused() == 3
    with pytest.raises(InvalidInputError, match="reuse_prefix is 3"):
        generator.generate(prompt, reuse_prefix=3)


@pytest.mark.parametrize(
    ("a", "b", "expected"), [([], [1], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 9, 3], 1), ([5], [6], 0)]
)
def test_common_prefix(a: list[int], b: list[int], expected: int) -> None:
    assert common_prefix(a, b) == common_prefix(b, a) == expected
