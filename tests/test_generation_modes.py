"""Beams, stop strings, time limits and cancelling through EdgeGenerator."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import InvalidInputError

PROMPT = "Gbogbo ènìyàn"


@pytest.fixture(scope="module")
def generator(text_model: Path) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(text_model, num_threads=1)


# --- beams (token for token against transformers: tests/decoding)


def test_beams_return_the_best_first_with_their_scores(generator: EdgeGenerator) -> None:
    result = generator.generate(
        [[1, 2, 3], [4]], num_beams=4, num_return_sequences=3, max_new_tokens=8, output_scores=True
    )
    assert result.sequences_scores is not None
    assert result.scores is not None
    assert result.sequences.shape == (6, 11)
    assert result.prompt_lengths == [3, 3, 3, 1, 1, 1]
    for scores in result.sequences_scores.reshape(2, 3):
        assert (np.diff(scores) <= 0).all()
    # The score of a sequence is its mean log-probability (length_penalty 1); float32 sums of 8 values.
    means = [float(np.sum(row, dtype=np.float64)) / len(row) for row in result.scores]
    np.testing.assert_allclose(result.sequences_scores, means, rtol=1e-5)
    best_alone = generator.generate([4], num_beams=4, max_new_tokens=8)
    assert best_alone.generated == [result.generated[3]]


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 3},
        {"num_beams": 5, "length_penalty": 1.2, "early_stopping": True, "eos_token_id": [11, 40, 77]},
        {"num_beams": 2, "repetition_penalty": 2.0, "early_stopping": "never"},
        {"num_beams": 5, "do_sample": True, "temperature": 0.9, "top_k": 50, "top_p": 0.95, "seed": 3},
    ],
    ids=["plain", "ends", "penalty", "sampled"],
)
def test_a_stream_of_beams_ends_with_the_result(generator: EdgeGenerator, options: dict[str, Any]) -> None:
    expected = generator.generate(PROMPT, max_new_tokens=25, **options)
    stream = generator.stream(PROMPT, max_new_tokens=25, **options)
    tokens = list(stream)
    assert [token.token_id for token in tokens] == expected.generated[0]
    assert "".join(token.text for token in tokens) == expected.text
    assert [token.finish_reason for token in tokens[:-1]] == [""] * (len(tokens) - 1)
    assert tokens[-1].finish_reason == expected.finish_reasons[0]


def test_the_extremes_of_all_options_that_change_scores_fit_float32(generator: EdgeGenerator) -> None:
    result = generator.generate(
        PROMPT,
        max_new_tokens=9,
        do_sample=True,
        temperature=1e-20,
        repetition_penalty=1e-6,
        frequency_penalty=-1e9,
        presence_penalty=-1e9,
        sequence_bias={(5,): 1e9},
    )
    assert result.finish_reasons == ["length"]


@pytest.mark.parametrize("beams", [1, 2])
def test_options_that_leave_no_token_are_named(generator: EdgeGenerator, beams: int) -> None:
    everything = range(generator.config.gptjx.vocab_size)
    for name, forbids in (("suppress_tokens", everything), ("bad_words_ids", [[i] for i in everything])):
        with pytest.raises(InvalidInputError, match=f"^{name} leaves no token to choose") as caught:
            generator.generate(PROMPT, max_new_tokens=9, num_beams=beams, **{name: forbids})
        assert "weights" not in str(caught.value)
    with pytest.raises(InvalidInputError, match=r"^logits_processor leaves no token to choose"):
        generator.generate(
            PROMPT, max_new_tokens=9, num_beams=beams, logits_processor=lambda ids, scores: scores - np.inf
        )


def test_what_all_beams_share_is_streamed_before_the_end(generator: EdgeGenerator) -> None:
    read, in_time = threading.Event(), []

    def wait_at_the_last_step(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        if ids.shape[1] == 2 + 11:
            in_time.append(read.wait(10))
        return scores

    # A bias on one token makes all beams agree on a beginning.
    options = {"num_beams": 3, "max_new_tokens": 12, "sequence_bias": [[[9], 3.0]]}
    expected = generator.generate([1, 2], **options).generated[0]
    with generator.stream([1, 2], logits_processor=wait_at_the_last_step, **options) as stream:
        assert next(stream).token_id == expected[0]
        read.set()
        assert [token.token_id for token in stream] == expected[1:]
    assert in_time and all(in_time)


# --- ends


def test_a_stop_string_ends_the_text_and_is_not_shown(generator: EdgeGenerator) -> None:
    whole = generator.generate(PROMPT, max_new_tokens=40)
    assert whole.text is not None
    stop = whole.text[7:9]  # two characters from the middle, wherever token borders fall
    expected = whole.text[: whole.text.index(stop)]
    result = generator.generate(PROMPT, max_new_tokens=40, stop_strings=stop)
    assert result.finish_reasons == ["stop"]
    assert result.text == expected
    assert result.generated[0] == whole.generated[0][: len(result.generated[0])]  # ids keep the stop
    kept = generator.generate(PROMPT, max_new_tokens=40, stop_strings=[stop], include_stop_string=True)
    assert kept.text is not None
    assert kept.text.startswith(expected + stop)
    streamed = "".join(token.text for token in generator.stream(PROMPT, max_new_tokens=40, stop_strings=stop))
    assert streamed == expected


def test_the_torch_model_stops_on_the_same_strings(generator: EdgeGenerator, text_model: Path) -> None:
    from sabiyarn_edge.modeling import GPTJXForCausalLM

    assert generator.tokenizer is not None
    text = generator.generate(PROMPT, max_new_tokens=40).text
    assert text is not None
    options = {"max_new_tokens": 40, "stop_strings": text[2:4]}
    model = GPTJXForCausalLM.from_pretrained(text_model.parent / "checkpoint")
    ids = [generator.tokenizer.encode(PROMPT)]
    found = model.generate(ids, tokenizer=generator.tokenizer, use_cache=False, **options)
    assert found.tolist() == generator.generate(PROMPT, **options).sequences.tolist()
    assert found.shape[1] < len(ids[0]) + 40


def test_stop_strings_need_a_tokenizer(generator: EdgeGenerator) -> None:
    without = EdgeGenerator(generator._engine, None, generator.generation_config)
    with pytest.raises(InvalidInputError, match="stop_strings need a tokenizer"):
        without.generate([1], stop_strings="x")


def test_max_time_ends_after_the_step_at_hand(generator: EdgeGenerator) -> None:
    def slow(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        time.sleep(0.05)
        return scores

    result = generator.generate([[1], [2]], max_new_tokens=90, max_time=0.2, logits_processor=slow)
    assert result.finish_reasons == ["time", "time"]
    assert 1 <= result.lengths[0] - 1 <= 5  # two rows of 0.05 s each step: over at the third


def test_cancel_from_another_thread_keeps_what_there_is(generator: EdgeGenerator) -> None:
    started = threading.Event()

    def slow(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        started.set()
        time.sleep(0.02)
        return scores

    def cancel() -> None:
        started.wait()
        generator.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    result = generator.generate([1, 2], max_new_tokens=90, logits_processor=slow)
    thread.join()
    assert result.finish_reasons == ["cancelled"]
    assert 2 < result.lengths[0] < 20
    generator.cancel()  # nothing runs: nothing happens
    assert generator.generate([1, 2], max_new_tokens=3).finish_reasons == ["length"]


def test_cancel_during_prefill_gives_an_empty_output(
    generator: EdgeGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generator._engine.decoder, "max_prefill_chunk", 4)
    stream = generator.stream([1] * 80, max_new_tokens=5, max_time=1e-9)
    assert list(stream) == []
    assert stream.result is not None
    assert stream.result.finish_reasons == ["time"]
    assert stream.result.sequences.tolist() == [[1] * 80]
    assert generator.generate([1, 2], max_new_tokens=3).finish_reasons == ["length"]
