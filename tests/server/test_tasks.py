"""/v1/tasks: each answer is what EdgeGenerator.run_task gives."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from sabiyarn_edge import CutAnswerWarning, EdgeGenerator
from tests.export.models import Exported
from tests.server.conftest import Server, running, wait_until

DOCUMENT = "Gbogbo ènìyàn. Ilé ńlá!\n\n  Ọjọ́ kìíní?\n"
SHORT = {"max_new_tokens": 9}

CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "a-text": ("translate", {"text": "Gbogbo ènìyàn", "to": "Yoruba", "options": SHORT}),
    "a-document": ("clean", {"text": DOCUMENT, "options": {**SHORT, "num_beams": 1}}),
    "a-list": ("diacritize", {"text": ["omo ile", "", DOCUMENT], "options": {**SHORT, "num_beams": 2}}),
    "an-empty-list": ("clean", {"text": []}),
    "slots": ("answer", {"question": ["Ta ni?", "Kí ni?"], "context": "Ade ni.", "options": SHORT}),
    "drawn": (
        "clean",
        {"text": DOCUMENT, "options": {**SHORT, "num_beams": 1, "do_sample": True, "seed": 5}},
    ),
    "special-tokens": (
        "translate",
        {"text": "a <yor> b", "to": "hau", "source": "eng", "options": SHORT, "special_tokens": True},
    ),
    "labels": ("sentiment", {"text": ["Ilé ńlá", "omo"]}),
    "labels-of-the-caller": ("classify", {"text": "Ilé ńlá", "labels": ["ilé", "ọmọ", "ilé ńlá"]}),
    "entities": ("tag_entities", {"text": "Ade dé sí Ìbàdàn."}),
}
TEXTS = [name for name, (task, _) in CALLS.items() if task not in ("sentiment", "classify", "tag_entities")]

pytestmark = pytest.mark.filterwarnings("ignore::sabiyarn_edge.CutAnswerWarning")  # a random model babbles


@pytest.fixture(scope="module")
def tagging(tagged: Exported, text_model: Path) -> Iterator[Server]:
    """A server of a model with SabiYarn's tasks and of one without any."""
    server = Server(
        *("--port", "0", "--threads", "1", "--parallel", "5", "--max-queue", "40"),
        *("--model", f"tagged={tagged.folder}", "--model", f"bare={text_model}"),
    )
    with running(server):
        yield server


@pytest.fixture(scope="module")
def oracle(tagged: Exported) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(tagged.folder, num_threads=1)


def given(oracle: EdgeGenerator, task: str, body: dict[str, Any]) -> tuple[Any, bool]:
    """What the generator gives, ready for JSON, and whether an answer was cut."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CutAnswerWarning)
        answer = oracle.run_task(task, **body)
    cut = any(issubclass(one.category, CutAnswerWarning) for one in caught)
    return json.loads(json.dumps(answer, default=as_fields)), cut


def as_fields(answer: Any) -> dict[str, Any]:
    label = {"label": answer.label} if hasattr(answer, "probabilities") else {}
    return {**label, **vars(answer)}


@pytest.mark.parametrize("name", CALLS)
def test_an_answer_is_what_the_generator_gives(tagging: Server, oracle: EdgeGenerator, name: str) -> None:
    task, body = CALLS[name]
    expected, cut = given(oracle, task, body)
    answer = tagging.post(f"/v1/tasks/{task.replace('_', '-')}", json=body)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["answer"] == expected
    assert (told["model"], told["task"]) == ("tagged", task)
    reasons = (
        told["finish_reason"]
        if isinstance(expected, list) and task != "tag_entities"
        else [told["finish_reason"]]
    )
    assert ("length" in reasons) == cut
    assert (
        told["usage"]["total_tokens"] == told["usage"]["prompt_tokens"] + told["usage"]["completion_tokens"]
    )


@pytest.mark.parametrize("name", TEXTS)
def test_a_stream_is_the_same_in_pieces(tagging: Server, oracle: EdgeGenerator, name: str) -> None:
    task, body = CALLS[name]
    expected, cut = given(oracle, task, body)
    expected = expected if isinstance(expected, list) else [expected]
    answer = tagging.post(f"/v1/tasks/{task}", json={**body, "stream": True})
    *events, done = [line for line in answer.text.split("\n") if line.startswith("data: ")]
    assert done == "data: [DONE]"
    *chunks, last = [json.loads(line.removeprefix("data: ")) for line in events]
    texts, reasons = [""] * len(expected), [None] * len(expected)
    for chunk in chunks:
        assert reasons[chunk["index"]] is None  # nothing comes after the end
        texts[chunk["index"]] += chunk["text"]
        reasons[chunk["index"]] = chunk["finish_reason"]
    assert texts == expected
    assert set(reasons) <= {"stop", "length"} and ("length" in reasons) == cut
    assert last["usage"] == tagging.post(f"/v1/tasks/{task}", json=body).json()["usage"] | {
        "prompt_tokens_details": last["usage"][
            "prompt_tokens_details"
        ]  # the second call finds more in the cache
    }


def test_the_list(tagging: Server, oracle: EdgeGenerator) -> None:
    listed = tagging.get("/v1/tasks").json()
    assert [entry["id"] for entry in listed["data"]] == list(oracle.tasks.tasks)
    translate = listed["data"][0]
    assert (translate["id"], translate["model"], translate["slots"]) == (
        "translate",
        "tagged",
        ["text", "to"],
    )
    assert translate["languages"]["to"]["yor"] == "Yoruba"
    assert tagging.get("/v1/tasks?model=tagged").json() == listed
    assert tagging.get("/v1/tasks?model=bare").json()["data"] == []
    assert tagging.get("/v1/tasks?model=other").status_code == 404


def nested(depth: int) -> Any:
    return {"a": nested(depth - 1)} if depth else 1


@pytest.mark.parametrize(
    ("task", "body", "status", "param", "message"),
    [
        ("translat", {"text": "a", "to": "yor"}, 404, "task", "Did you mean translate?"),
        ("x" * 500, {"text": "a"}, 404, "task", "it must be one of translate, diacritize"),
        ("translate", {"model": "bare", "text": "a"}, 404, "task", "the model bare has no tasks"),
        ("translate", {"model": "other", "text": "a"}, 404, "model", "the models are tagged, bare"),
        ("translate", {"model": 3, "text": "a"}, 400, "model", "must be a model's name"),
        ("translate", {"text": "a"}, 400, "to", "to is missing"),
        ("translate", {"text": None, "to": "yor"}, 400, "text", "text is missing"),
        ("translate", {"text": "a", "to": "yorr"}, 400, "to", "Did you mean yor (Yoruba)?"),
        ("translate", {"text": "a", "to": 3}, 400, "to", "to is 3"),
        ("translate", {"text": 3, "to": "yor"}, 400, "text", "text is a int; it must be a string"),
        ("translate", {"text": ["a", 3], "to": "yor"}, 400, "text", "text[1] is a int"),
        ("translate", {"text": {"a": 1}, "to": "yor"}, 400, "text", "text is a dict"),
        ("translate", {"text": "a", "too": "yor"}, 400, "too", "these are text, to, labels"),
        ("translate", {"text": ["a", "b"], "to": ["yor"]}, 400, None, "the lists differ in length"),
        ("clean", {"text": "a", "labels": ["a", "b"]}, 400, None, "the task clean takes no labels"),
        ("classify", {"text": "a"}, 400, None, "Give a list of labels"),
        ("classify", {"text": "a", "labels": "a,b"}, 400, "labels", "expected `array"),
        ("classify", {"text": "a", "labels": ["a", ""]}, 400, "labels", "labels[1] is ''"),
        ("sentiment", {"text": "a", "stream": True}, 400, "stream", "the task sentiment gives no text"),
        ("clean", {"text": "a", "stream": 1}, 400, "stream", "stream is 1: expected `bool"),
        ("clean", {"text": "a", "options": []}, 400, "options", "expected `object"),
        ("clean", {"text": "a", "options": {"num_beam": 2}}, 400, None, "did you mean num_beams?"),
        ("clean", {"text": "a", "options": {"num_beams": 0}}, 400, "num_beams", "num_beams is 0"),
        ("clean", {"text": "a", "options": {"num_beams": 6}}, 400, "num_beams", "needs 6 rows"),
        ("clean", {"text": "a", "options": {"num_return_sequences": 2, "num_beams": 2}}, 400, None, "one answer"),
        ("clean", {"text": ["a"] * 2049}, 400, "text", "text has 2049 texts, but a request may have 2048"),
        ("clean", {"text": ["a.\n" * 16384, "a.\n" * 16384]}, 400, "text", "text has 98304 characters, but a request"),
        ("clean", {"text": "a", "options": nested(300)}, 400, None, "unknown option a"),
        ("../clean", {"text": "a"}, 404, None, "is not answered here"),
        ("%2e%2e%2fclean", {"text": "a"}, 404, None, ""),
        ("cle%00an", {"text": "a"}, 404, "task", "it must be one of"),
        ("summarize", {"text": "a " * 400}, 400, None, "more than the 256 positions"),
    ],
)  # fmt: skip
def test_what_is_refused(
    tagging: Server, task: str, body: dict[str, Any], status: int, param: str | None, message: str
) -> None:
    answer = tagging.post(f"/v1/tasks/{task}", json=body)
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert message in error["message"]
    assert param is None or error["param"] == param


def test_a_client_that_leaves_frees_its_rows(tagging: Server) -> None:

    body = {"text": [DOCUMENT] * 50, "stream": True}
    with httpx.stream("POST", f"{tagging.url}/v1/tasks/clean", json=body) as answer:
        next(answer.iter_lines())
    wait_until(lambda: tagging.metric("requests_running") == tagging.metric("requests_waiting") == 0)


def test_limits_of_the_server(serve: Callable[..., Server], tagged: Exported, oracle: EdgeGenerator) -> None:
    server = serve("--model", f"tagged={tagged.folder}", "--max-tokens-limit", "4", "--timeout", "0.3")
    server.wait_until_ready()
    expected = oracle.run_task("clean", text="omo", options={"max_new_tokens": 4})
    answer = server.post("/v1/tasks/clean", json={"text": "omo"}).json()
    assert answer["answer"] == expected  # the task's own length is cut
    refused = server.post("/v1/tasks/clean", json={"text": "omo", "options": {"max_new_tokens": 5}})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "max_new_tokens")


def test_what_is_not_written_in_time_is_cut(
    serve: Callable[..., Server], tagged: Exported, oracle: EdgeGenerator
) -> None:
    server = serve("--model", f"tagged={tagged.folder}", "--timeout", "0.5")
    server.wait_until_ready()
    body = {"text": ["omo ile"] * 500, "options": {"max_new_tokens": 20, "min_new_tokens": 20}}
    late = server.post("/v1/tasks/clean", json=body).json()
    expected = oracle.run_task("clean", text="omo ile", options=body["options"])
    assert late["answer"][0] == expected != late["answer"][-1]
    assert len(late["answer"]) == 500 and set(late["finish_reason"]) == {"length"}
    with httpx.stream("POST", f"{server.url}/v1/tasks/clean", json={**body, "stream": True}) as answer:
        events = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
    reasons = [json.loads(event).get("finish_reason") for event in events[:-1]]
    assert events[-1] == "[DONE]" and reasons.count("length") == 500


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": ["omo ile " * 9] * 2000}),
        ("/v1/tasks/sentiment", {"text": ["omo ile"] * 1500}),
        ("/v1/completions", {"prompt": ["omo ile " * 9] * 5, "echo": True, "logprobs": 1, "max_tokens": 1}),
    ],
    ids=["embeddings", "labels", "echo"],
)
def test_what_gives_nothing_before_its_end_has_its_time_too(
    serve: Callable[..., Server], tagged: Exported, path: str, body: dict[str, Any]
) -> None:
    server = serve("--model", f"tagged={tagged.folder}", "--timeout", "0.01")
    server.wait_until_ready()
    late = server.post(path, json=body)
    assert (late.status_code, late.json()["error"]["code"]) == (503, "timeout")
    wait_until(lambda: server.metric("requests_running") == server.metric("requests_waiting") == 0)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/embeddings", {"input": ["omo ile " * 9] * 2000}, 503),
        ("/v1/tasks/clean", {"text": ["omo ile"] * 800, "options": {"min_new_tokens": 40}}, 200),
    ],
    ids=["embeddings", "texts"],
)
def test_draining_ends_requests_of_many_texts(
    serve: Callable[..., Server], tagged: Exported, path: str, body: dict[str, Any], status: int
) -> None:
    server = serve("--model", f"tagged={tagged.folder}", "--drain-timeout", "0.1")
    server.wait_until_ready()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(server.post, path, json=body)
        wait_until(lambda: server.metric("requests_running") > 0 or asked.done())
        assert server.end() == 0
        answer = asked.result()
    assert answer.status_code == status, answer.text[:200]
    if status == 503:
        assert answer.json()["error"]["code"] == "draining"
    else:
        assert answer.json()["finish_reason"][-1] == "length"
