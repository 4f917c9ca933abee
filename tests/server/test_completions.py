"""/v1/completions, asked by OpenAI's client: each answer is what EdgeGenerator gives alone."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from sabiyarn_edge import EdgeGenerator
from tests.server.conftest import Server

REASONS = {"eos": "stop", "stop": "stop", "length": "length"}
PROMPT = "Gbogbo ènìyàn"

# What the client is given, and the same for EdgeGenerator.
CALLS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "plain": ({"max_tokens": 20}, {"max_new_tokens": 20}),
    "all-defaults": ({}, {}),
    "greedy": ({"max_tokens": 9, "temperature": 0}, {"max_new_tokens": 9}),
    "drawn": (
        {"max_tokens": 20, "temperature": 1.5, "top_p": 0.9, "seed": 7},
        {"max_new_tokens": 20, "do_sample": True, "temperature": 1.5, "top_p": 0.9, "seed": 7},
    ),
    "top-p-alone-draws": (
        {"max_tokens": 8, "top_p": 0.7, "seed": 7},
        {"max_new_tokens": 8, "do_sample": True, "top_p": 0.7, "seed": 7},
    ),
    "choices": (
        {"max_tokens": 12, "temperature": 1, "n": 3, "seed": 2**63},
        {"max_new_tokens": 12, "do_sample": True, "num_return_sequences": 3, "seed": 2**63},
    ),
    "penalties": (
        {"max_tokens": 20, "frequency_penalty": 0.7, "presence_penalty": -0.5},
        {"max_new_tokens": 20, "frequency_penalty": 0.7, "presence_penalty": -0.5},
    ),
    "bias": (
        {"max_tokens": 9, "logit_bias": {"65": 100, "66": -100}},
        {"max_new_tokens": 9, "sequence_bias": {(65,): 100.0, (66,): -100.0}},
    ),
    "hugging-face": (
        {
            "max_tokens": 12,
            "extra_body": {
                "num_beams": 3,
                "repetition_penalty": 1.3,
                "length_penalty": 0.5,
                "no_repeat_ngram_size": 2,
            },
        },
        {
            **{"max_new_tokens": 12, "num_beams": 3, "repetition_penalty": 1.3, "length_penalty": 0.5},
            "no_repeat_ngram_size": 2,
        },
    ),
    "drawing-options": (
        {"max_tokens": 12, "seed": 3, "extra_body": {"top_k": 7, "min_p": 0.01, "do_sample": True}},
        {"max_new_tokens": 12, "seed": 3, "top_k": 7, "min_p": 0.01, "do_sample": True},
    ),
    "hugging-face-names": (
        {"extra_body": {"max_new_tokens": 12, "stop_strings": ["a", "b"]}},
        {"max_new_tokens": 12, "stop_strings": ["a", "b"]},
    ),
    "best-beams": (
        {"max_tokens": 6, "n": 2, "extra_body": {"num_beams": 4}},
        {"max_new_tokens": 6, "num_return_sequences": 2, "num_beams": 4},
    ),
    "slide": (
        {"max_tokens": 150, "extra_body": {"overflow": "slide", "keep_tokens": 2}},
        {"max_new_tokens": 150, "overflow": "slide", "keep_tokens": 2},
    ),
    "what-clients-send-unasked": (
        {"max_tokens": 5, "user": "me", "extra_body": {"best_of": 1, "suffix": None}},
        {"max_new_tokens": 5},
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_an_answer_is_what_the_generator_gives(
    client: openai.OpenAI, generator: EdgeGenerator, name: str
) -> None:
    asked, options = CALLS[name]
    result = generator.generate(PROMPT, **options)
    answer = client.completions.create(model="tiny", prompt=PROMPT, **asked)
    assert [choice.text for choice in answer.choices] == result.texts
    assert [choice.index for choice in answer.choices] == list(range(len(answer.choices)))
    assert [choice.finish_reason for choice in answer.choices] == [REASONS[r] for r in result.finish_reasons]
    assert (answer.object, answer.model) == ("text_completion", "tiny")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == result.prompt_lengths[0]
    assert answer.usage.completion_tokens == sum(map(len, result.generated))
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize("name", [name for name in CALLS if name != "best-beams"])
def test_a_stream_is_the_same_in_pieces(client: openai.OpenAI, generator: EdgeGenerator, name: str) -> None:
    asked, options = CALLS[name]
    result = generator.generate(PROMPT, **options)
    texts = [""] * len(result.lengths)
    reasons: list[Any] = [None] * len(texts)
    for chunk in client.completions.create(model="tiny", prompt=PROMPT, stream=True, **asked):
        assert chunk.usage is None
        [choice] = chunk.choices
        assert reasons[choice.index] is None  # nothing comes after the end
        texts[choice.index] += choice.text
        reasons[choice.index] = choice.finish_reason
    assert texts == result.texts
    assert reasons == [REASONS[r] for r in result.finish_reasons]


def test_stop_strings(client: openai.OpenAI, generator: EdgeGenerator) -> None:
    text = generator.generate(PROMPT, max_new_tokens=20).text
    assert text is not None
    stop = text[4:6]
    answer = client.completions.create(model="tiny", prompt=PROMPT, max_tokens=20, stop=[stop, "never seen"])
    assert answer.choices[0].text == text[: text.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize(
    "prompts", [["a b", "Su dai"], [[5, 6, 7], [8]], [65, 66]], ids=["texts", "lists-of-ids", "ids"]
)
@pytest.mark.parametrize("stream", [False, True])
def test_prompts_of_every_kind(
    client: openai.OpenAI, generator: EdgeGenerator, prompts: list[Any], stream: bool
) -> None:
    options = {"temperature": 1.2, "seed": 11}
    result = generator.generate(prompts, max_new_tokens=7, do_sample=True, num_return_sequences=2, **options)
    answer = client.completions.create(
        model="tiny", prompt=prompts, max_tokens=7, n=2, stream=stream, **options
    )
    texts: dict[int, str] = {}
    for chunk in answer if stream else [answer]:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
    assert [texts[index] for index in sorted(texts)] == result.texts


@pytest.mark.parametrize("stream", [False, True])
def test_echo(client: openai.OpenAI, generator: EdgeGenerator, stream: bool) -> None:
    result = generator.generate("a b", max_new_tokens=5)
    for prompt in ("a b", generator.tokenizer.encode("a b")):
        answer = client.completions.create(
            model="tiny", prompt=prompt, max_tokens=5, echo=True, stream=stream
        )
        text = "".join(chunk.choices[0].text for chunk in (answer if stream else [answer]))
        assert text == "a b" + str(result.text)


def test_usage_at_the_end_of_a_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.completions.create(
            model="tiny", prompt=PROMPT, max_tokens=6, stream=True, stream_options={"include_usage": True}
        )
    )
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 6


def test_cached_tokens_are_told(client: openai.OpenAI, generator: EdgeGenerator) -> None:
    prompt = list(range(10, 50))
    used = [client.completions.create(model="tiny", prompt=prompt, max_tokens=2).usage for _ in range(2)]
    cached = [usage.prompt_tokens_details.cached_tokens for usage in used]
    assert cached == [0, len(prompt) - 1]  # the last token's logits are computed each time


def test_without_a_model_the_first_is_meant(server: Server) -> None:
    answer = server.post("/v1/completions", json={"prompt": "a", "max_tokens": 1}).json()
    assert answer["model"] == "tiny"


def test_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").owned_by == "sabiyarn-edge"
    with pytest.raises(openai.NotFoundError, match="the models are tiny"):
        client.models.retrieve("other")
