"""Structured output through every door: generate, stream, sessions, map, batches, prompt lookup, threads, torch."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import InvalidInputError
from tests.constraints.proof import fits

pytest.importorskip("llguidance")

PROMPT = "<eng> Everyone has the right to"
CHOICES = ["life", "liberty", "a nationality", "rest and leisure", "ominira"]
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "article": {"type": "integer", "minimum": 1, "maximum": 30},
        "orúkọ": {"enum": ["ẹ̀tọ́", "òmìnira"]},
        "kept": {"type": "boolean"},
    },
    "required": ["article", "orúkọ", "kept"],
    "additionalProperties": False,
}
ENOUGH = 250
"""Tokens for SCHEMA with all the blanks that its form allows: 12 times a line break and 16 blanks."""
CONSTRAINTS: list[dict[str, Any]] = [
    {"choices": CHOICES},
    {"json_schema": SCHEMA},
    {"regex": "[a-zẹọ]{3,9}( [a-z]{2,5}){1,3}\\."},
    {"grammar": 'start: "(" WORD ("," WORD){1,2} ")"\nWORD: /[a-z]{2,6}/'},
]
MODES: list[dict[str, Any]] = [
    {},
    {"do_sample": True, "seed": 3, "num_return_sequences": 3},
    {"do_sample": True, "seed": 3, "top_k": 0, "top_p": 0.9, "temperature": 3.0},
    {"num_beams": 4, "num_return_sequences": 3},
    {"num_beams": 3, "do_sample": True, "seed": 5},
    {"repetition_penalty": 1.5, "no_repeat_ngram_size": 8},
]


@pytest.fixture(scope="module")
def nano() -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(num_threads=1)


def follows(text: str, option: str, value: Any) -> bool:
    """Whether a text is what an option allows."""
    if option == "choices":
        return text in value
    if option == "json_schema":
        return fits(text, value)
    pattern = value if option == "regex" else r"\([a-z]{2,6}(,[a-z]{2,6}){1,2}\)"
    return re.fullmatch(pattern, text) is not None


@pytest.mark.parametrize("constraint", CONSTRAINTS, ids=lambda c: next(iter(c)))
@pytest.mark.parametrize("mode", MODES, ids=lambda m: ",".join(m) or "greedy")
def test_every_way_of_decoding(nano: EdgeGenerator, constraint: dict[str, Any], mode: dict[str, Any]) -> None:
    result = nano.generate([PROMPT, "<yor> Gbogbo"], max_new_tokens=ENOUGH, **constraint, **mode)
    [(option, value)] = constraint.items()
    assert result.texts is not None and result.complete is not None
    for text, reason, complete in zip(result.texts, result.finish_reasons, result.complete, strict=True):
        assert complete == follows(text, option, value)
        assert complete or reason == "length"
    assert any(result.complete)


def test_what_is_likeliest_is_chosen(nano: EdgeGenerator) -> None:
    """Greedy decoding takes the best of the tokens that may come next, as a callable that allows no others does."""
    tokenizer = nano.tokenizer
    assert tokenizer is not None
    start = len(tokenizer.encode(PROMPT))

    def may_follow(_: int, ids: np.ndarray) -> list[int]:
        text = tokenizer.decode(ids[start:].tolist())
        beginnings = {choice[:end] for choice in CHOICES for end in range(len(choice) + 1)}
        following = [t for t in range(2048) if t not in tokenizer.special_ids]
        found = [
            t for t in following if text + tokenizer.token_bytes(t).decode(errors="replace") in beginnings
        ]
        return found or [0]

    expected = nano.generate(PROMPT, prefix_allowed_tokens_fn=may_follow, max_new_tokens=20).text
    assert nano.generate(PROMPT, choices=CHOICES, max_new_tokens=20).text == expected
    beams = nano.generate(PROMPT, prefix_allowed_tokens_fn=may_follow, max_new_tokens=20, num_beams=3)
    assert nano.generate(PROMPT, choices=CHOICES, max_new_tokens=20, num_beams=3).text in {
        beams.text,
        *CHOICES,
    }


def test_streams_sessions_and_maps_give_the_same(nano: EdgeGenerator) -> None:
    for constraint in CONSTRAINTS:
        options = {"max_new_tokens": ENOUGH, **constraint}
        alone = nano.generate(PROMPT, **options)
        with nano.stream(PROMPT, **options) as stream:
            streamed = "".join(token.text for token in stream)
        assert streamed == alone.text
        assert stream.result is not None and stream.result.complete == alone.complete == [True]
        session = nano.session("<eng> Everyone has")
        assert session.generate(" the right to", **options).text == alone.text
        again = session.generate(" and", **options)
        assert again.complete == [True]
        results = list(nano.map([PROMPT, "<hau> Su dai", PROMPT], **options))
        assert [r.text for r in results[::2]] == [alone.text] * 2
        batch = nano.generate([PROMPT, "<hau> Su dai"], **options)
        assert batch.texts == [alone.text, results[1].text]


@pytest.mark.usefixtures("eager_guesses")
def test_prompt_lookup_gives_the_same() -> None:
    # Of its own: the others' has learnt what guesses cost on this machine.
    nano = EdgeGenerator.from_pretrained(num_threads=1)
    example = '{"article": 3, "orúkọ": "òmìnira", "kept": true}'
    prompt = f"<eng> {example} {example} {example[:20]}"
    for constraint in [{"json_schema": SCHEMA}, {"choices": [example, example.replace("3", "4")]}]:
        plain = nano.generate(prompt, max_new_tokens=ENOUGH, prompt_lookup_num_tokens=0, **constraint)
        guessed = nano.generate(prompt, max_new_tokens=ENOUGH, prompt_lookup_num_tokens=8, **constraint)
        assert guessed.timings.num_guesses > 0
        assert guessed.sequences.tolist() == plain.sequences.tolist()
        assert guessed.complete == [True]


def test_threads_do_not_disturb_one_another(nano: EdgeGenerator) -> None:
    calls = [{**constraint, **mode} for constraint in CONSTRAINTS for mode in MODES[:4]] + [{}]
    alone = [nano.generate(PROMPT, max_new_tokens=30, **call).sequences.tolist() for call in calls]
    with ThreadPoolExecutor(8) as pool:
        together = pool.map(
            lambda call: nano.generate(PROMPT, max_new_tokens=30, **call).sequences.tolist(), calls
        )
    assert list(together) == alone


def test_a_text_that_slides_keeps_its_form() -> None:
    generator = EdgeGenerator.from_pretrained(num_threads=1, max_length=24, overflow="slide")
    result = generator.generate(PROMPT, json_schema=SCHEMA, max_new_tokens=ENOUGH)
    assert result.timings.reruns > 0
    assert fits(result.text or "", SCHEMA)


@pytest.mark.parametrize("mode", [{}, {"num_beams": 3}], ids=["greedy", "beams"])
def test_a_model_without_an_end_token_ends_too(nano: EdgeGenerator, mode: dict[str, Any]) -> None:
    for constraint in CONSTRAINTS:
        result = nano.generate(PROMPT, eos_token_id=None, max_new_tokens=ENOUGH, **constraint, **mode)
        assert (result.finish_reasons, result.complete) == (["stop"], [True])
    endless = nano.generate(PROMPT, eos_token_id=None, regex="[a-z]+", max_new_tokens=5, **mode)
    assert (endless.finish_reasons, endless.complete) == (["length"], [True])  # it could have gone on


def test_the_end_token_comes_where_a_text_may_end(nano: EdgeGenerator) -> None:
    """A bias that makes the end token the best of all: it waits until the text is complete."""
    result = nano.generate(PROMPT, regex="[a-z]{4}[a-z]*", sequence_bias={(0,): 100.0}, max_new_tokens=20)
    assert result.finish_reasons == ["eos"]
    assert len(result.text or "") >= 4
    assert result.complete == [True]
    short = nano.generate(PROMPT, choices=["a", "ab"], sequence_bias={(0,): 100.0})
    assert (short.text, short.finish_reasons) == ("a", ["eos"])


def test_a_cut_text_says_so(nano: EdgeGenerator) -> None:
    result = nano.generate(PROMPT, json_schema=SCHEMA, max_new_tokens=3)
    assert (result.finish_reasons, result.complete) == (["length"], [False])
    assert nano.generate(PROMPT, max_new_tokens=3).complete is None
    stopped = nano.generate(PROMPT, json_schema=SCHEMA, stopping_criteria=lambda ids, _: ids.shape[1] > 14)
    assert (stopped.finish_reasons, stopped.complete) == (["stop"], [False])


def test_a_text_that_nothing_may_follow_ends_before_min_new_tokens(nano: EdgeGenerator) -> None:
    result = nano.generate(PROMPT, choices=["life"], min_new_tokens=30, max_new_tokens=40)
    assert (result.text, result.finish_reasons) == ("life", ["stop"])


def test_a_processor_cannot_bring_a_forbidden_token_back(nano: EdgeGenerator) -> None:
    def prefer(_: Any, scores: np.ndarray) -> np.ndarray:
        scores[:, 5] = 1e9
        return scores

    assert nano.generate(PROMPT, choices=CHOICES, logits_processor=prefer).text in CHOICES


@pytest.mark.parametrize(
    "mode", [{}, {"do_sample": True}, {"num_beams": 3}], ids=["greedy", "sampling", "beams"]
)
def test_options_that_leave_no_token_are_named(nano: EdgeGenerator, mode: dict[str, Any]) -> None:
    tokenizer = nano.tokenizer
    assert tokenizer is not None
    x = [t for t in range(2048) if tokenizer.token_bytes(t).startswith(b"x")]
    with pytest.raises(
        InvalidInputError, match=r"^choices and suppress_tokens together leave no token to choose"
    ):
        nano.generate(PROMPT, choices=["axe"], suppress_tokens=x, **mode)
    with pytest.raises(
        InvalidInputError, match=r"^regex and no_repeat_ngram_size, bad_words_ids, logits_processor"
    ):
        nano.generate(
            PROMPT,
            regex="x{30}",
            no_repeat_ngram_size=1,
            bad_words_ids=[[1, 2]],
            logits_processor=lambda _, scores: scores,
            **mode,
        )
    assert nano.generate(PROMPT, choices=CHOICES, **mode).text in CHOICES  # nothing is left of it


@pytest.mark.parametrize(
    "form",
    [
        {"regex": r"[^\x00-\x{10FFFF}]"},
        {"regex": r"a[^\x00-\x{10FFFF}]"},
        {"grammar": "start: start"},
        {"json_schema": {"$ref": "#"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("mode", [{}, {"do_sample": True}, {"num_beams": 3}], ids=str)
def test_forms_that_no_text_fits(nano: EdgeGenerator, form: dict[str, Any], mode: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        nano.generate(PROMPT, **form, **mode)
    assert str(caught.value) == f"{next(iter(form))} is a form that no text fits. Mend it."


@pytest.mark.parametrize(
    "form",
    [
        {"grammar": 'start: "a" b\nb: b'},
        {
            "json_schema": {
                "type": "object",
                "properties": {"a": {"$ref": "#/$defs/x"}},
                "required": ["a"],
                "$defs": {"x": {"$ref": "#/$defs/x"}},
            }
        },
    ],
    ids=["grammar", "schema"],
)
def test_forms_that_lead_into_a_dead_end(nano: EdgeGenerator, form: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError) as caught:
        nano.generate(PROMPT, **form)
    assert str(caught.value) == (
        f"{next(iter(form))} is a dead end: no text that begins with what was generated fits it. Mend it."
    )


def test_an_error_ends_its_own_call_only(nano: EdgeGenerator) -> None:
    calls = [
        nano.agenerate(PROMPT, choices=CHOICES),
        nano.agenerate(PROMPT, regex="x{30}", no_repeat_ngram_size=1),
    ]

    async def together() -> list[Any]:
        import asyncio

        return await asyncio.gather(*calls, return_exceptions=True)

    import asyncio

    good, bad = asyncio.run(together())
    assert good.text in CHOICES
    assert isinstance(bad, InvalidInputError)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"choices": ["a"], "regex": "a"},
            "^regex and choices are given: an output is held to one of them only",
        ),
        ({"json_object": True, "json_schema": {}}, "^json_schema and json_object are given"),
        (
            {"choices": ["a"], "stop_strings": "b"},
            "^choices is given, and stop_strings is 'b'.*Leave out one",
        ),
        ({"regex": "a", "forced_eos_token_id": 0}, "^regex is given, and forced_eos_token_id is 0"),
        ({"regex": "a", "forced_bos_token_id": 0}, "^regex is given, and forced_bos_token_id is 0"),
        ({"choices": "ab"}, "choices is 'ab', but must be a list"),
        ({"choices": []}, "choices is \\[\\], but must be a list of at least one entry"),
        ({"choices": ["a", ""]}, r"choices\[1\] is '', but must be a text"),
        ({"choices": ["a", "b", "a"]}, "choices holds 'a' twice"),
        ({"choices": ["\ud800"]}, "half a surrogate pair"),
        ({"choices": ["a" * 100_001]}, "100001 bytes of text; at most 100000"),
        ({"choices": ["no", "none"], "eos_token_id": None}, "holds 'no', with which 'none' begins"),
        ({"json_schema": "{"}, "json_schema is not JSON"),
        ({"json_schema": [1]}, "must be a JSON schema: a dict"),
        ({"json_schema": {"enum": [float("nan")]}}, "cannot be written as JSON"),
        ({"json_schema": {"enum": [object()]}}, "cannot be written as JSON"),
        ({"json_schema": {"enum": ["\ud800"]}}, "half a surrogate pair"),
        ({"json_object": 1}, "json_object is 1, but must be True or False"),
        ({"regex": ""}, "regex is '', but must be a text"),
        ({"grammar": 3}, "grammar is 3, but must be a text"),
    ],
)
def test_bad_options_are_refused(nano: EdgeGenerator, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        nano.generate(PROMPT, **options)


def test_there_must_be_a_tokenizer(text_model: Path, tmp_path: Path) -> None:
    for file in text_model.iterdir():
        if file.name != "tokenizer.json":
            (tmp_path / file.name).symlink_to(file)
    with pytest.raises(InvalidInputError, match=r"^choices needs a tokenizer, but there is none here"):
        EdgeGenerator.from_pretrained(tmp_path).generate([1, 2], choices=["a"])


def test_json_objects(nano: EdgeGenerator) -> None:
    result = nano.generate(PROMPT, json_object=True, max_new_tokens=100, num_beams=2)
    assert result.complete is not None
    assert not result.complete[0] or isinstance(json.loads(result.text or ""), dict)
    assert (result.text or "").startswith("{")


def test_a_config_keeps_a_schema_as_text(nano: EdgeGenerator, tmp_path: Path) -> None:
    config = nano.generation_config.updated(json_schema=SCHEMA)
    assert json.loads(str(config.json_schema)) == SCHEMA
    config.save(tmp_path)
    assert type(config).load(tmp_path) == config
    assert fits(nano.generate(PROMPT, config, max_new_tokens=ENOUGH).text or "", SCHEMA)


def test_the_torch_model_too(text_model: Path) -> None:
    pytest.importorskip("torch")
    from sabiyarn_edge.modeling import GPTJXForCausalLM

    checkpoint = text_model.parent / "checkpoint"
    if not checkpoint.is_dir():
        pytest.skip("the export was kept from another machine, without its checkpoint")
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1)
    tokenizer = generator.tokenizer
    assert tokenizer is not None
    model = GPTJXForCausalLM.from_pretrained(checkpoint, max_batch_size=2)
    end = tokenizer.token_to_id("|end_of_text|")
    prompts = [tokenizer.encode("Gbogbo ènìyàn"), tokenizer.encode("ni a")]
    for constraint in CONSTRAINTS:
        for mode in MODES[:4]:
            options = {"max_new_tokens": 40, "eos_token_id": end, **constraint, **mode}
            theirs = model.generate(prompts, tokenizer=tokenizer, return_dict_in_generate=True, **options)
            ours = generator.generate(prompts, **options)
            for row, length in enumerate(ours.lengths):
                assert theirs.sequences[row, :length].tolist() == ours.sequences[row, :length].tolist()
            assert theirs.finish_reasons == ours.finish_reasons


def test_a_memory_limit_counts_the_tables() -> None:
    with pytest.raises(
        InvalidInputError, match=r"^regex needs tables of the vocabulary: .* but memory_limit_mb is 14"
    ):
        EdgeGenerator.from_pretrained(num_threads=1, memory_limit_mb=14, max_length=64).generate(
            PROMPT, regex="a"
        )
    generator = EdgeGenerator.from_pretrained(num_threads=1, memory_limit_mb=20, max_length=64)
    assert generator.generate(PROMPT, regex="a", max_new_tokens=8).text == "a"
    with pytest.raises(InvalidInputError, match=r"^choices needs tables"):  # there is no room for both
        generator.generate(PROMPT, choices=["a"], max_new_tokens=8)


def test_more_beams_than_outputs(nano: EdgeGenerator) -> None:
    options: dict[str, Any] = {"choices": ["a", "b"], "max_new_tokens": 10, "num_beams": 4}
    with pytest.raises(
        InvalidInputError, match=r"num_return_sequences is 4, but .* only 2 outputs that choices"
    ):
        nano.generate([PROMPT, PROMPT], num_return_sequences=4, **options)
    both = nano.generate(PROMPT, num_return_sequences=2, **options)
    assert (sorted(both.texts or []), both.finish_reasons) == (["a", "b"], ["stop", "stop"])
