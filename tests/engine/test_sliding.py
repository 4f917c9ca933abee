"""overflow="slide" and "truncate_prompt" through EdgeGenerator, against uncached torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.modeling import GPTJXForCausalLM
from tests.export.models import Exported, export_tiny
from tests.sliding_oracle import generate_sliding

BLOCK = 24


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    folder = tmp_path_factory.mktemp("short-model")
    return export_tiny(folder, {"block_size": BLOCK}, kv_cache_dtype="float32", verify=False)


@pytest.fixture(scope="module")
def torch_model(exported: Exported) -> GPTJXForCausalLM:
    return GPTJXForCausalLM.from_pretrained(exported.folder.parent / "checkpoint")


@pytest.fixture(scope="module")
def generator(exported: Exported) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(exported.folder, num_threads=1, overflow="slide")


def random_prompts(exported: Exported, *lengths: int) -> list[list[int]]:
    rng = np.random.default_rng(8)
    return [rng.integers(0, exported.shape["vocab_size"], length).tolist() for length in lengths]


MODES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "penalized": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
    "sampled": {"do_sample": True, "temperature": 3.0, "num_return_sequences": 2},
    "beams": {"num_beams": 3, "length_penalty": 1.2},
    "beams-sampled": {"num_beams": 2, "do_sample": True, "temperature": 2.0},
}


@pytest.mark.parametrize("keep", [0, 5, BLOCK - 2])
@pytest.mark.parametrize("mode", MODES)
def test_any_length_equals_uncached_torch(
    generator: EdgeGenerator, torch_model: GPTJXForCausalLM, exported: Exported, mode: str, keep: int
) -> None:
    prompts = random_prompts(exported, 3, BLOCK - 1, BLOCK, 1, 3 * BLOCK)  # rows slide at different steps
    options = {"max_new_tokens": 60, **MODES[mode]}
    seeds = [11, 12, 13, 14, 15]
    expected = generate_sliding(torch_model, prompts, keep=keep, seeds=seeds, **options)
    result = generator.generate(
        prompts, keep_tokens=keep, seed=seeds if "do_sample" in options else None, **options
    )
    assert result.sequences.tolist() == pad(expected, result.sequences.shape[1])
    assert result.timings.reruns > 0


def pad(rows: list[list[int]], length: int) -> list[list[int]]:
    return [ids + [0] * (length - len(ids)) for ids in rows]


@pytest.mark.parametrize(("window", "sinks"), [(10, 0), (16, 3), (BLOCK - 1, 0)])
def test_a_window_shorter_than_the_positions_slides_too(
    exported: Exported, torch_model: GPTJXForCausalLM, window: int, sinks: int
) -> None:
    generator = EdgeGenerator.from_pretrained(
        exported.folder,
        num_threads=1,
        kv_window=window,
        num_sink_tokens=sinks,
        overflow="slide",
        keep_tokens=2,
    )
    prompts = random_prompts(exported, 2, window, window + 1, BLOCK, 3 * BLOCK)
    expected = generate_sliding(torch_model, prompts, keep=2, window=window, sinks=sinks, max_new_tokens=70)
    assert generator.generate(prompts, max_new_tokens=70).sequences.tolist() == pad(expected, 3 * BLOCK + 70)


@pytest.mark.parametrize("guesses", [1, 4])
def test_prompt_lookup_slides_alike(generator: EdgeGenerator, exported: Exported, guesses: int) -> None:
    for prompt in ([1, 2, 3] * 5, *random_prompts(exported, 4, 2 * BLOCK)):
        expected = generator.generate(prompt, max_new_tokens=5 * BLOCK, keep_tokens=3)
        found = generator.generate(
            prompt, max_new_tokens=5 * BLOCK, keep_tokens=3, prompt_lookup_num_tokens=guesses
        )
        assert found.sequences.tolist() == expected.sequences.tolist()
        assert found.timings.reruns == expected.timings.reruns


def test_five_times_the_positions_take_the_memory_of_one(exported: Exported) -> None:
    generator = EdgeGenerator.from_pretrained(exported.folder, num_threads=1, overflow="slide")
    new_tokens = 5 * BLOCK
    result = generator.generate([1, 2, 3], max_new_tokens=new_tokens)
    assert result.lengths == [3 + new_tokens]
    tile = 64  # positions: a row is laid out in whole tiles
    assert generator.memory_usage()["kv_cache"] == tile * generator.memory_usage()["kv_bytes_per_position"]
    # Half the positions are freed each time, so each token is run about once more: cropping to the newest BLOCK - 1
    # tokens at every token would run BLOCK - 1 for each.
    assert result.timings.reruns == (3 + new_tokens - 1 - BLOCK + BLOCK // 2 - 1) // (BLOCK // 2)
    assert result.timings.rerun_tokens == result.timings.reruns * BLOCK // 2 <= new_tokens
    assert 0 < result.timings.rerun_seconds < result.timings.decode_seconds


def test_a_stream_slides(generator: EdgeGenerator) -> None:
    expected = generator.generate([1, 2, 3], max_new_tokens=50).generated[0]
    assert [token.token_id for token in generator.stream([1, 2, 3], max_new_tokens=50)] == expected


def test_nothing_asked_for_is_the_default_length(generator: EdgeGenerator) -> None:
    assert generator.generate([1, 2, 3]).lengths == [3 + 256]
    assert generator.generate([1, 2, 3], max_length=100).lengths == [100]


def test_a_rerun_can_be_cancelled(generator: EdgeGenerator, monkeypatch: pytest.MonkeyPatch) -> None:
    restart = generator._engine.rows.restart

    def cancel_and_restart(*args: Any) -> None:
        generator.cancel()
        restart(*args)

    monkeypatch.setattr(generator._engine.rows, "restart", cancel_and_restart)
    prompts = [[1, 2], [3, 4, 5]]
    # The longer prompt slides first and cancels both; the other one has one token less.
    result = generator.generate(prompts, max_new_tokens=90)
    assert result.finish_reasons == ["cancelled"] * 2
    assert result.lengths[1] == BLOCK + 1  # the token whose turn it was is chosen, but was not run
    beams = generator.generate(prompts, max_new_tokens=90, num_beams=2)
    assert beams.finish_reasons == ["cancelled"] * 2
    monkeypatch.undo()
    assert generator.generate(prompts, max_new_tokens=3).finish_reasons == ["length"] * 2


def test_overflow_is_refused_by_default(exported: Exported) -> None:
    generator = EdgeGenerator.from_pretrained(exported.folder, num_threads=1)
    with pytest.raises(InvalidInputError, match=r'3 tokens and max_new_tokens is 22: 25 .* 24\. .*"slide"'):
        generator.generate([1, 2, 3], max_new_tokens=22)
    with pytest.raises(InvalidInputError, match=r'24 tokens; with at most 24 .*"truncate_prompt"'):
        generator.generate([1] * 24)
    assert generator.generate([1, 2, 3], max_new_tokens=22, overflow="slide").lengths == [25]
    with pytest.raises(InvalidInputError, match="keep_tokens is 23; with 24 positions"):
        EdgeGenerator.from_pretrained(exported.folder, overflow="slide", keep_tokens=23)


# --- truncate_prompt


@pytest.mark.parametrize("window", [None, 14])
def test_a_cut_prompt_is_as_if_it_had_been_given_so(exported: Exported, window: int | None) -> None:
    generator = EdgeGenerator.from_pretrained(
        exported.folder, num_threads=1, overflow="truncate_prompt", keep_tokens=4, kv_window=window
    )
    long, short = random_prompts(exported, 50, 6)
    room = min(BLOCK - 8, window or BLOCK)
    cut = long[:4] + long[-(room - 4) :]
    expected = generator.generate([cut, short], max_new_tokens=8)
    result = generator.generate([long, short], max_new_tokens=8)
    assert result.sequences.tolist() == expected.sequences.tolist()
    assert result.prompt_lengths == [room, 6]
    assert result.truncated_tokens == [50 - room, 0]
    assert expected.truncated_tokens == [0, 0]


def test_without_a_number_half_the_positions_are_left_for_the_output(exported: Exported) -> None:
    generator = EdgeGenerator.from_pretrained(exported.folder, num_threads=1, overflow="truncate_prompt")
    (long,) = random_prompts(exported, 50)
    assert generator.generate(long).prompt_lengths == [BLOCK // 2]
    result = generator.generate(long, max_length=20)
    assert (result.prompt_lengths, result.lengths) == ([10], [20])
    with pytest.raises(InvalidInputError, match="at most 23 new tokens"):
        generator.generate(long, max_new_tokens=24)
