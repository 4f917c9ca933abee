"""Lines of OpenAI's batch format are answered as the server answers them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openai.types
from openai.types.create_embedding_response import CreateEmbeddingResponse

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.jobs import run_batch
from tests.jobs.conftest import records_of


def asked(name: str, url: str, **body: Any) -> dict[str, Any]:
    return {"custom_id": name, "method": "POST", "url": url, "body": body}


def choices(record: dict[str, Any]) -> list[str]:
    return [choice["text"] for choice in record["response"]["body"]["choices"]]


def test_options_of_the_job_are_defaults_under_what_a_body_says(
    generator: EdgeGenerator, tmp_path: Path
) -> None:
    lines = [
        asked("a", "/v1/completions", prompt="ọmọ"),
        asked("b", "/v1/completions", prompt="ọmọ", max_tokens=5),
        asked("c", "/v1/completions", prompt="ọmọ", max_tokens=5, temperature=0, n=1),
        asked("d", "/v1/completions", prompt="ọmọ", n=1),
        asked("e", "/v1/embeddings", input="ọmọ"),
    ]
    options = {"max_new_tokens": 2, "do_sample": True, "temperature": 0.01, "num_return_sequences": 2}
    run_batch(generator, lines, tmp_path / "out.jsonl", options=options)
    records = records_of(tmp_path / "out.jsonl")
    # So low a temperature draws the likeliest token.
    short, long = (generator.generate("ọmọ", max_new_tokens=tokens).text for tokens in (2, 5))
    assert [choices(record) for record in records[:4]] == [[short] * 2, [long] * 2, [long], [short]]
    assert records[4]["response"]["status_code"] == 200


def test_what_is_not_for_these_lines_is_refused(tasked: EdgeGenerator, tmp_path: Path) -> None:
    line = asked("a", "/v1/completions", prompt="ọmọ")
    for given, flag in (
        ({"task": "translate", "slots": {"to": "yor"}}, "--task"),
        ({"ids": True}, "--ids"),
        ({"options": {"output_scores": True}}, "output_scores"),
    ):
        run_batch(tasked, [line], tmp_path / "out.jsonl", overwrite=True, **given)
        [record] = records_of(tmp_path / "out.jsonl")
        assert (record["custom_id"], record["response"]) == ("a", None)
        assert record["error"]["message"].startswith(f"{flag} is not for lines in OpenAI's format")


def test_a_line_without_a_custom_id_is_told_so(tasked: EdgeGenerator, tmp_path: Path) -> None:
    line = asked("a", "/v1/completions", prompt="ọmọ")
    del line["custom_id"]
    run_batch(tasked, [line], tmp_path / "out.jsonl")
    [record] = records_of(tmp_path / "out.jsonl")
    assert "there is no custom_id, which a line in OpenAI's format needs" in record["error"]["message"]


def test_answers_are_those_of_the_endpoints(
    generator: EdgeGenerator, text_model: Path, tmp_path: Path
) -> None:
    lines = [
        asked("c", "/v1/completions", model=text_model.name, prompt="ọmọ", max_tokens=4, temperature=0),
        asked("d", "/v1/completions", prompt="ọmọ", max_tokens=4, temperature=1.5, n=2),
        asked("e", "/v1/embeddings", input=["ọmọ", "ilé"]),
        asked("f", "/v1/completions", model="gpt-4o", prompt="a"),
        asked("g", "/v1/images", prompt="a"),
        asked("h", "/v1/completions", prompt="a", stream=True),
        {"id": "own", "prompt": "ọmọ", "options": {"max_new_tokens": 4}},
    ]
    outputs = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    for output in outputs:
        summary = run_batch(generator, lines, output, options={"seed": 1})
    assert outputs[0].read_bytes() == outputs[1].read_bytes()  # nothing in it depends on the moment
    records = records_of(outputs[0])
    assert [record.get("custom_id") for record in records] == [*"cdefgh", None]
    greedy = openai.types.Completion.model_validate(records[0]["response"]["body"])
    assert greedy.choices[0].text == generator.generate("ọmọ", max_new_tokens=4).text == records[6]["text"]
    drawn = openai.types.Completion.model_validate(records[1]["response"]["body"])
    assert drawn.choices[0].text != drawn.choices[1].text
    vectors = CreateEmbeddingResponse.model_validate(records[2]["response"]["body"])
    expected = generator.embed(["ọmọ", "ilé"], normalize=True)
    np.testing.assert_array_equal(np.array([item.embedding for item in vectors.data], np.float32), expected)
    assert [record["response"] and record["response"]["status_code"] for record in records[:6]] == [
        *(200, 200, 200, 404, None, None)
    ]
    assert "url is '/v1/images'; it must be one of /v1/completions" in records[4]["error"]["message"]
    assert "nobody reads along" in records[5]["error"]["message"]
    assert (summary.records, summary.errors) == (7, 3)
