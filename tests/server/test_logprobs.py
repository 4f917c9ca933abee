"""Log-probabilities, against those that NumPy computes from the model's own logits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import openai
import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.generator import find_model
from sabiyarn_edge.server.logprobs import LogprobReader, TextOffsets, shown
from sabiyarn_edge.text.tokenizer import Tokenizer

PROMPT = "Su dai"


def oracle(generator: EdgeGenerator, options: dict[str, Any]) -> tuple[list[int], list[np.ndarray]]:
    """Chosen tokens, and the log-probabilities of the vocabulary at each, in float64."""
    seen: list[np.ndarray] = []

    def keep(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        row = scores[0].astype(np.float64)
        seen.append(row - row.max() - np.log(np.exp(row - row.max()).sum()))
        return scores

    result = generator.generate(PROMPT, logits_processor=keep, **options)
    return result.generated[0], seen


@pytest.mark.parametrize(
    ("asked", "options"),
    [
        ({}, {}),
        ({"temperature": 1.0, "seed": 4}, {"do_sample": True, "seed": 4}),
        ({"logit_bias": {"65": -100}}, {"sequence_bias": {(65,): -100.0}}),
    ],
    ids=["greedy", "drawn", "biased"],
)
@pytest.mark.parametrize("stream", [False, True])
def test_completions(
    client: openai.OpenAI,
    generator: EdgeGenerator,
    asked: dict[str, Any],
    options: dict[str, Any],
    stream: bool,
) -> None:
    tokens, expected = oracle(generator, {"max_new_tokens": 8, **options})
    answer = client.completions.create(
        model="tiny", prompt=PROMPT, max_tokens=8, logprobs=3, stream=stream, **asked
    )
    answer = list(answer) if stream else [answer]
    parts = [chunk.choices[0].logprobs for chunk in answer]
    found = [part for part in parts if part is not None]
    assert [text for part in found for text in part.tokens] == [
        shown(token, generator.tokenizer)[0] for token in tokens
    ]
    # float32 sums of 320 terms
    np.testing.assert_allclose(
        [value for part in found for value in part.token_logprobs],
        [row[token] for token, row in zip(tokens, expected, strict=True)],
        rtol=1e-5,
        atol=1e-6,
    )
    for top, row in zip([top for part in found for top in part.top_logprobs], expected, strict=True):
        best = np.argsort(-row, kind="stable")[:3]
        assert list(top) == [shown(int(token), generator.tokenizer)[0] for token in best]
    check_offsets(generator, "".join(chunk.choices[0].text for chunk in answer), found)


def check_offsets(generator: EdgeGenerator, text: str, parts: list[Any]) -> None:
    """Tokens that are whole characters stand in the text where it is said; special tokens give none."""
    special = {shown(token, generator.tokenizer)[0] for token in generator.tokenizer.special_ids}
    offsets = [offset for part in parts for offset in part.text_offset]
    tokens = [token for part in parts for token in part.tokens]
    assert offsets == sorted(offsets) and len(offsets) == len(tokens)
    for token, offset in zip(tokens, offsets, strict=True):
        assert 0 <= offset <= len(text)
        if not token.startswith("bytes:") and token not in special:
            assert text[offset : offset + len(token)] == token, (token, offset, text)


def test_each_choice_has_its_own(client: openai.OpenAI, generator: EdgeGenerator) -> None:
    answer = client.completions.create(
        model="tiny", prompt=PROMPT, max_tokens=5, n=3, temperature=2.0, seed=1, logprobs=0
    )
    result = generator.generate(
        PROMPT, max_new_tokens=5, num_return_sequences=3, do_sample=True, temperature=2.0, seed=1
    )
    for choice, tokens in zip(answer.choices, result.generated, strict=True):
        assert choice.logprobs is not None
        assert choice.logprobs.tokens == [shown(token, generator.tokenizer)[0] for token in tokens]
        assert choice.logprobs.top_logprobs == [{}] * len(tokens)


@pytest.mark.parametrize("num_top", [1, 2, 5, 400])
def test_equal_scores_are_ordered_by_id(num_top: int) -> None:
    reader = LogprobReader(num_top)
    scores = np.array([[1, 3, 3, -np.inf, 2, 3]], np.float32)
    assert reader._read(np.zeros((1, 1), np.int64), scores) is scores
    assert reader._choose(np.array([[0, 4]]), None) is False
    [told] = reader.tokens
    assert [token for token, _ in told.top] == [1, 2, 5, 4, 0, 3][:num_top]
    total = math.log(math.e + 3 * math.e**3 + math.e**2)
    assert told.logprob == pytest.approx(2 - total, rel=1e-6)  # float32


def test_bytes_that_are_no_text(generator: EdgeGenerator) -> None:
    tokenizer = generator.tokenizer
    token = next(t for t in range(256) if tokenizer.token_bytes(t) == b"\xe1")
    assert shown(token, tokenizer) == ("bytes:\\xe1", b"\xe1")


@pytest.mark.parametrize("stream", [False, True])
def test_echoed_prompts_have_theirs(client: openai.OpenAI, generator: EdgeGenerator, stream: bool) -> None:
    """The oracle are the model's logits behind each part of the prompt, which a callback sees."""
    prompts = [PROMPT, "Gbogbo"]
    answer = client.completions.create(
        model="tiny", prompt=prompts, max_tokens=3, logprobs=4, echo=True, stream=stream, logit_bias={"65": 5}
    )
    found: dict[int, list[Any]] = {0: [], 1: []}
    written = {0: "", 1: ""}
    for chunk in answer if stream else [answer]:
        for choice in chunk.choices:
            written[choice.index] += choice.text
            found[choice.index] += [choice.logprobs] if choice.logprobs else []
    for index, prompt in enumerate(prompts):
        ids = generator.tokenizer.encode(prompt)
        values = [value for part in found[index] for value in part.token_logprobs]
        tops = [top for part in found[index] for top in part.top_logprobs]
        tokens = [text for part in found[index] for text in part.tokens]
        assert tokens[: len(ids)] == [shown(token, generator.tokenizer)[0] for token in ids]
        assert len(tokens) == len(values) == len(tops) == len(ids) + 3
        assert values[0] is None and tops[0] is None
        for place in range(1, len(ids)):
            row = logits_behind(generator, ids[:place])
            expected = row - row.max() - np.log(np.exp(row - row.max()).sum())
            np.testing.assert_allclose(values[place], expected[ids[place]], rtol=1e-5, atol=1e-6)  # float32
            best = np.argsort(-expected, kind="stable")[:4]
            assert list(tops[place]) == [shown(int(token), generator.tokenizer)[0] for token in best]
            is_best = best[0] == ids[place]
            assert (
                values[place] == max(tops[place].values())
            ) == is_best  # as evaluations ask for greedy answers
        check_offsets(generator, written[index], found[index])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<hau> Su dai", [0, 6, 7, 8, 11]),  # <hau> S u _da i: no token has the blank behind the tag
        ("<yor>   Su dai", None),
        ("Su   dai\n\n a 😀 Su", None),
    ],
)
def test_offsets_where_tokens_lack_a_blank(text: str, expected: list[int] | None) -> None:
    tokenizer = Tokenizer.from_file(find_model("nano") / "tokenizer.json")
    prompt, answer = tokenizer.encode(text), tokenizer.encode("\u2019yan 😀 ọ̀rọ̀")
    offsets = TextOffsets(tokenizer, prompt, text, len(prompt))
    found = [offsets.push(token) for token in prompt + answer]
    whole = text + tokenizer.decode(answer)
    for token, offset in zip(prompt + answer, found, strict=True):
        own = shown(token, tokenizer)[0]
        assert own.startswith("bytes:") or whole[offset : offset + len(own)] == own
    assert expected is None or found[: len(prompt)] == expected
    alone = TextOffsets(tokenizer, prompt, "", 0)
    assert [alone.push(token) + len(text) for token in answer] == found[len(prompt) :]


def logits_behind(generator: EdgeGenerator, ids: list[int]) -> np.ndarray:
    seen: list[np.ndarray] = []

    def keep(_: np.ndarray, scores: np.ndarray) -> np.ndarray:
        seen.append(scores[0].astype(np.float64))
        return scores

    generator.generate(ids, max_new_tokens=1, logits_processor=keep)
    return seen[0]


def test_evaluations_score_texts(client: openai.OpenAI, generator: EdgeGenerator) -> None:
    """As lm-evaluation-harness asks: the sum over a text's tokens, less the one that is generated."""
    ids = generator.tokenizer.encode("Gbogbo ènìyàn ni a bí")
    answer = client.completions.create(
        model="tiny", prompt=ids, max_tokens=1, logprobs=1, echo=True, temperature=0, seed=1
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.token_logprobs is not None
    [score] = generator.score([ids])
    assert sum(logprobs.token_logprobs[1:-1]) == pytest.approx(score.total, rel=1e-6)
    assert logprobs.token_logprobs[1:-1] == score.log_probs.tolist()
