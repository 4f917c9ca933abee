"""Random requests of all kinds, and what EdgeGenerator gives for them."""

from __future__ import annotations

import json
import random
import warnings
from dataclasses import dataclass
from typing import Any

import httpx

from sabiyarn_edge import EdgeGenerator

WORDS = (
    *("ọmọ", "ilé", "ẹ̀kọ́", "ńlá", "ọjọ́", "kìíní", "oṣù", "kejì", "ụlọ", "akwụkwọ", "ɗan", "adam", "ƙasa"),
    *("Gbogbo", "ènìyàn", "ni", "a", "bí", "ní", "òmìnira"),
)
SYSTEM = "Ẹnì kọ̀ọ̀kan ló ní ẹ̀tọ́ sí òmìnira. "
"""Many prompts begin with it, so that keys and values are shared."""
TASKS = {
    "clean": {"text": "{} \n\n{}", "options": {"max_new_tokens": 9}},
    "translate": {"text": ["{}", "{}"], "to": "yor", "options": {"max_new_tokens": 7, "num_beams": 2}},
    "sentiment": {"text": "{}"},
}


@dataclass(frozen=True)
class Asked:
    """One request."""

    path: str
    body: dict[str, Any]


def draw_request(rng: random.Random) -> Asked:
    """One of any kind."""
    kind = rng.random()
    if kind < 0.1:
        body = {
            "input": [text(rng) for _ in range(rng.randint(1, 3))],
            "pooling": rng.choice(["mean", "last"]),
        }
        return Asked("/v1/embeddings", body)
    if kind < 0.2:
        name = rng.choice(sorted(TASKS))
        filled = json.loads(json.dumps(TASKS[name]).replace("{}", text(rng)))
        return Asked(f"/v1/tasks/{name}", filled)
    prompts: Any = [text(rng) for _ in range(rng.choice([1, 1, 1, 2]))]
    if rng.random() < 0.2:
        prompts = [[rng.randrange(256) for _ in range(rng.randint(1, 40))] for _ in prompts]
    body = {
        "prompt": prompts if len(prompts) > 1 or rng.random() < 0.3 else prompts[0],
        "max_tokens": rng.randint(1, 24),
        **draw_way(rng),
        **draw_scores(rng),
    }
    if rng.random() < 0.2:
        body["stop"] = rng.sample("aeiọ n", rng.randint(1, 3))
    if rng.random() < 0.15:
        body["echo"] = True
    if rng.random() < 0.4:
        body["stream"] = True
        if body.get("num_beams"):
            body.pop("n", None)
    if not body.get("num_beams") and rng.random() < 0.3:
        body["logprobs"] = rng.randint(0, 5)
    return Asked("/v1/completions", body)


def draw_way(rng: random.Random) -> dict[str, Any]:
    """How tokens are chosen: the best, drawn, or beams."""
    way = rng.random()
    if way < 0.3:
        return {"prompt_lookup_num_tokens": 3} if rng.random() < 0.3 else {"temperature": 0}
    if way < 0.75:
        found: dict[str, Any] = {"temperature": rng.choice([0.3, 1, 1.7]), "seed": rng.randrange(2**64)}
        for name, values in (
            ("top_p", [0.5, 0.95]),
            ("top_k", [0, 3, 40]),
            ("min_p", [0.02]),
            ("typical_p", [0.8]),
        ):
            if rng.random() < 0.3:
                found[name] = rng.choice(values)
        if rng.random() < 0.4:
            found["n"] = rng.randint(2, 3)
        return found
    found = {"num_beams": rng.randint(2, 4), "length_penalty": rng.choice([0.5, 1.0, 2.0])}
    if rng.random() < 0.4:
        found["n"] = 2
    return found


def draw_scores(rng: random.Random) -> dict[str, Any]:
    """What changes scores."""
    drawn = {
        "repetition_penalty": rng.choice([1.2, 1.5]),
        "frequency_penalty": rng.choice([-0.4, 0.7]),
        "presence_penalty": 0.5,
        "no_repeat_ngram_size": 2,
        "min_new_tokens": 1,
        "logit_bias": {str(rng.randrange(256)): rng.choice([-100, 5.5])},
    }
    return {name: value for name, value in drawn.items() if rng.random() < 0.15}


def text(rng: random.Random) -> str:
    begin = SYSTEM if rng.random() < 0.4 else ""
    return begin + " ".join(rng.choices(WORDS, k=rng.randint(1, 9)))


async def send(client: httpx.AsyncClient, asked: Asked) -> Any:
    """The answer, whole or put together of its events, without what differs from time to time."""
    answer = await client.post(asked.path, json=asked.body)
    assert answer.status_code == 200, (asked, answer.text)
    if not asked.body.get("stream"):
        return without_times(answer.json())
    *events, done = [line for line in answer.text.split("\n") if line.startswith("data: ")]
    assert done == "data: [DONE]", (asked, done)
    choices: dict[int, dict[str, Any]] = {}
    for line in events:
        [choice] = json.loads(line.removeprefix("data: "))["choices"]
        whole = choices.setdefault(choice["index"], {"text": "", "logprobs": []})
        assert "finish_reason" not in whole, "something came after the end"
        whole["text"] += choice["text"]
        whole["logprobs"].append(choice["logprobs"])
        if choice["finish_reason"]:
            whole["finish_reason"] = choice["finish_reason"]
    return {"choices": [{"index": index, **choices[index]} for index in sorted(choices)]}


def without_times(answer: dict[str, Any]) -> dict[str, Any]:
    usage = {name: value for name, value in answer["usage"].items() if name != "prompt_tokens_details"}
    return {
        **{name: value for name, value in answer.items() if name not in ("id", "created")},
        "usage": usage,
    }


def told(asked: Asked, answer: Any) -> Any:
    """Of an answer what `expected` gives for its request."""
    if asked.path == "/v1/embeddings":
        return [item["embedding"] for item in answer["data"]]
    if asked.path != "/v1/completions":
        return answer["answer"]
    return [(choice["text"], choice["finish_reason"]) for choice in answer["choices"]]


def expected(generator: EdgeGenerator, asked: Asked) -> Any:
    """What the generator gives without a server."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # options that change nothing, and answers that are cut
        if asked.path == "/v1/embeddings":
            vectors = generator.embed(asked.body["input"], pooling=asked.body["pooling"], normalize=True)
            return vectors.tolist()
        if asked.path != "/v1/completions":
            answer = generator.run_task(asked.path.rpartition("/")[2], **asked.body)
            labels = getattr(answer, "probabilities", None)
            return {"label": answer.label, "probabilities": labels} if labels else answer
        return expected_choices(generator, asked.body)


def expected_choices(generator: EdgeGenerator, body: dict[str, Any]) -> list[tuple[str, str]]:
    options = {name: value for name, value in body.items() if name not in ("stream", "logprobs", "echo")}
    prompts = options.pop("prompt")
    for name, ours in (
        ("max_tokens", "max_new_tokens"),
        ("n", "num_return_sequences"),
        ("stop", "stop_strings"),
    ):
        if name in options:
            options[ours] = options.pop(name)
    if "logit_bias" in options:
        options["sequence_bias"] = {
            (int(token),): float(bias) for token, bias in options.pop("logit_bias").items()
        }
    if "temperature" in options:
        options["do_sample"] = options["temperature"] > 0
        if not options["do_sample"]:
            del options["temperature"]
    result = generator.generate(prompts, **options)
    assert result.texts is not None
    reasons = ["stop" if reason in ("eos", "stop") else "length" for reason in result.finish_reasons]
    returns = options.get("num_return_sequences", 1)
    given = prompts if isinstance(prompts, list) and not isinstance(prompts[0], int) else [prompts]
    echoes = [""] * len(given)
    if body.get("echo"):
        assert generator.tokenizer is not None
        echoes = [one if isinstance(one, str) else generator.tokenizer.decode(one) for one in given]
    return [
        (echoes[index // returns] + text, reason)
        for index, (text, reason) in enumerate(zip(result.texts, reasons, strict=True))
    ]
