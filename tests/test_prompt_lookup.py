"""Prompt lookup through EdgeGenerator: the same output as without it, in fewer runs, within the same memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import InvalidInputError

pytestmark = pytest.mark.usefixtures("free_guesses")

CYCLE = [10, 11, 12, 13]
REPEATING = {
    "sequence_bias": [((a, b), 50.0) for a, b in zip(CYCLE, CYCLE[1:] + CYCLE[:1], strict=True)],
    "eos_token_id": None,
}
"""Makes one cycle of ids the likeliest text."""


@pytest.fixture(scope="module")
def generator(text_model: Path) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(text_model, num_threads=1)


@contextmanager
def watched_runs(generator: EdgeGenerator) -> Iterator[list[int]]:
    """The number of logits of each run of the graph."""
    runner = generator._engine.decoder.runner
    graph, runs = runner.graph, []

    class Watched:
        def run_with_iobinding(self, binding: Any, *arguments: Any) -> None:
            graph.run_with_iobinding(binding, *arguments)
            runs.append(binding.get_outputs()[0].shape()[0])

    runner.graph = Watched()
    try:
        yield runs
    finally:
        runner.graph = graph


@pytest.mark.parametrize("window", [None, 24], ids=["plain", "ring"])
@pytest.mark.parametrize("guesses", [None, 1, 3, 10])
def test_it_changes_no_token_and_no_score(text_model: Path, window: int | None, guesses: int | None) -> None:
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1, kv_window=window)
    rng = np.random.default_rng(guesses or 0)
    for options in (
        {},
        {"repetition_penalty": 1.3},
        {"eos_token_id": [5, 9, 30, 31, 32]},
        {"no_repeat_ngram_size": 3},
        {"do_sample": True, "seed": 11, "temperature": 0.3},
        {"do_sample": True, "seed": 12, **REPEATING},
    ):
        for _ in range(4):
            prompt = np.tile(rng.integers(0, 40, 5), 4)[: rng.integers(2, 20)].tolist()
            call = {"max_new_tokens": 60, "output_scores": True, **options}
            expected = generator.generate(prompt, prompt_lookup_num_tokens=0, **call)
            found = generator.generate(prompt, prompt_lookup_num_tokens=guesses, **call)
            assert expected.timings.num_guesses == 0
            assert found.sequences.tolist() == expected.sequences.tolist()
            assert found.finish_reasons == expected.finish_reasons
            np.testing.assert_array_equal(found.scores[0], expected.scores[0])  # the same bits


@pytest.mark.parametrize("guesses", [None, 4], ids=["unasked", "asked"])
def test_it_works_for_batches(generator: EdgeGenerator, guesses: int | None) -> None:
    prompts = [[5, 6, 7] * 3, CYCLE * 4, [1, 2, 3]]
    call = {"max_new_tokens": 40, **REPEATING}
    expected = generator.generate(prompts, prompt_lookup_num_tokens=0, **call)
    found = generator.generate(prompts, prompt_lookup_num_tokens=guesses, **call)
    assert found.sequences.tolist() == expected.sequences.tolist()
    assert found.timings.num_guesses > 0


@pytest.mark.parametrize("guesses", [None, 4], ids=["unasked", "asked"])
def test_it_runs_the_model_less_often(generator: EdgeGenerator, guesses: int | None) -> None:
    with watched_runs(generator) as runs:
        result = generator.generate(
            CYCLE * 2,
            max_new_tokens=61,
            prompt_lookup_num_tokens=guesses,
            reuse_prefix=False,
            **REPEATING,
        )
    assert result.sequences.tolist() == [(CYCLE * 18)[: 8 + 61]]
    # The prompt; then 60 tokens behind the first. Each run gives one, and with it the guesses, few at first.
    most = 1 + (guesses or 8)
    assert 1 + 60 // most <= len(runs) <= 1 + 60 // most + 4
    assert result.timings.num_guesses == sum(runs) - len(runs) > 0


def test_unasked_guesses_of_all_texts_share_one_room(generator: EdgeGenerator) -> None:
    runner = generator._engine.decoder.runner
    room = runner.common_guesses
    assert room == generator._engine.decoder.costs.common_guesses == 8
    runner.common_guesses = 3
    try:
        with watched_runs(generator) as runs:
            found = generator.generate([CYCLE * 4, CYCLE * 5], max_new_tokens=40, **REPEATING)
            unasked = max(runs)
            generator.generate(CYCLE * 4, max_new_tokens=40, prompt_lookup_num_tokens=6, **REPEATING)
    finally:
        runner.common_guesses = room
    assert found.timings.num_guesses > 0
    assert 2 < unasked <= 2 + 3
    assert max(runs) > 1 + 3  # one that was asked for has a room of its own


@pytest.mark.parametrize(
    "options",
    [
        {"prompt_lookup_num_tokens": 0},
        {"num_beams": 2},
        {"do_sample": True, "num_return_sequences": 2, "seed": 1},
        {"attn_mask": np.tril(np.ones((16, 16), bool))},
    ],
    ids=["none", "beams", "returns", "mask"],
)
def test_where_nothing_is_guessed(generator: EdgeGenerator, options: dict[str, Any]) -> None:
    result = generator.generate(CYCLE * 4, max_new_tokens=30, **REPEATING, **options)
    assert result.timings.num_guesses == 0


def test_each_token_of_a_stream_arrives_alone(generator: EdgeGenerator) -> None:
    expected = generator.generate(CYCLE * 4, max_new_tokens=30, prompt_lookup_num_tokens=0, **REPEATING)
    seen: list[int] = []
    stream = generator.stream(CYCLE * 4, max_new_tokens=30, **REPEATING)
    for token in stream:
        assert isinstance(token.token_id, int)
        seen.append(token.token_id)
    assert [seen] == expected.generated
    assert stream.result.timings.num_guesses > 0


def test_functions_of_the_caller_see_every_token(generator: EdgeGenerator) -> None:
    def called(**lookup: int) -> tuple[list[list[int]], list[list[int]]]:
        calls: list[list[int]] = []

        def note(ids: Any, scores: Any) -> Any:
            calls.append(np.asarray(ids)[0].tolist())
            return scores

        result = generator.generate(
            CYCLE * 4, max_new_tokens=20, logits_processor=[note], **REPEATING, **lookup
        )
        assert (result.timings.num_guesses > 0) != bool(lookup)
        return calls, result.generated

    assert called() == called(prompt_lookup_num_tokens=0)


def test_a_memory_limit_leaves_room_for_guesses_or_has_none(text_model: Path) -> None:
    call = {"max_new_tokens": 40, **REPEATING}
    prompts = [CYCLE * 4, CYCLE * 3]
    expected = EdgeGenerator.from_pretrained(text_model).generate(prompts, **call)
    settings = EdgeGenerator.from_pretrained(text_model, memory_limit_mb=500, max_length=64)._settings
    needed = sum(request.needed_bytes for request in settings.decide(prompts, None, call).requests)
    without = (settings.costs.shared + needed) / 2**20
    for limit, guesses in (
        (without + 0.001, False),
        (without + settings.costs.guessing / 2**20 + 0.001, True),
    ):
        limited = EdgeGenerator.from_pretrained(text_model, memory_limit_mb=limit, max_length=64)
        found = limited.generate(prompts, **call)
        assert found.sequences.tolist() == expected.sequences.tolist()
        assert (found.timings.num_guesses > 0) == guesses


def test_contradictions_are_named(generator: EdgeGenerator) -> None:
    with pytest.raises(
        InvalidInputError, match=r"prompt_lookup_num_tokens.*num_beams|num_beams.*prompt_lookup"
    ):
        generator.generate([1], prompt_lookup_num_tokens=3, num_beams=2)
    generator.generate([1], prompt_lookup_num_tokens=0, num_beams=2, max_new_tokens=1)
