"""Prompts against transformers' own, typed tags, and histories that are too long."""

from __future__ import annotations

from typing import Any

import pytest

from sabiyarn_edge.chat.prompt import ChatModel, KnownText
from sabiyarn_edge.chat.template import ChatTemplate
from sabiyarn_edge.chat.tools import INTRODUCTION
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.text.tokenizer import Tokenizer
from tests.chat.family import BEGIN, TAGS, TEMPLATE, family_tokenizer
from tests.chat.templates import CALLING, PLAIN, TEMPLATES, TOOL_TEMPLATES, WEATHER
from tests.tiny_tokenizer import END

pytest.importorskip("jinja2")
pytest.importorskip("jsonschema")

SENTENCES = (
    "Ẹ káàárọ̀, ẹ̀kọ́ dára.",
    "Ina kwana, ɗan uwa? Ƙasa ta yi ƴanci.",
    "Kedu ka ị mere? Ọ dị mma.",
    "How far? I dey kampe.",
    "Good morning, how are you?",
    "Jam na? Mi ɗon jam, ɓiɓɓe am.",
    "Mesiere, abadie? Ŋkpọ idịghe.",
    "Mavọ, wo rhi ọmamọ?",
    "Maakye, wo ho te sɛn? Ɛyɛ.",
    "A fɔn ganji a? Ɖokpo wɛ.",
    "Ŋdi na mi, ɖeviwo le agbe.",
    "Bonjour, ça va ? Où es-tu ?",
    "صباح الخير، كيف حالك؟",
)
"""Yoruba, Hausa, Igbo, Pidgin, English, Fulfulde, Efik, Urhobo, Twi, Fon, Ewe, French and Arabic."""


def model(template: str = TEMPLATE, positions: int = 512, window: int | None = None) -> ChatModel:
    tokens = {"bos_token": BEGIN, "eos_token": END}
    tokenizer = Tokenizer(family_tokenizer())
    return ChatModel(tokenizer, ChatTemplate(template, tokens), positions, window or positions)


def of_transformers(template: str, messages: Any, tools: Any = None) -> tuple[str, list[int]]:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=family_tokenizer(), bos_token=BEGIN, eos_token=END, chat_template=template
    )
    options = {"tools": tools, "add_generation_prompt": True}
    text = tokenizer.apply_chat_template(messages, tokenize=False, **options)
    return text, tokenizer.apply_chat_template(messages, **options)


@pytest.mark.parametrize("name", [*TEMPLATES, *TOOL_TEMPLATES, "family"])
def test_prompts_are_those_of_transformers(name: str) -> None:
    template = {**TEMPLATES, **TOOL_TEMPLATES, "family": TEMPLATE}[name]
    if name == "json":  # role and content alone
        template = template.replace("messages[0]", "messages[1]")
    prompt = model(template, 10**4).prompt(PLAIN)
    assert (prompt.text, prompt.ids) == of_transformers(template, PLAIN)


@pytest.mark.parametrize("name", TOOL_TEMPLATES)
def test_prompts_with_tools_are_those_of_transformers(name: str) -> None:
    template = TOOL_TEMPLATES[name]
    prompt = model(template, 10**4).prompt(CALLING, tools=[WEATHER])
    assert (prompt.text, prompt.ids) == of_transformers(template, CALLING, [WEATHER])


def test_the_familys_form() -> None:
    prompt = model().prompt(CALLING)
    assert prompt.text == (
        f"<s><|system|>Jẹ́ kúkúrú.{END}<|user|>Báwo ni ojú ọjọ́ ní Ìbàdàn?{END}"
        '<|assistant|><tool_call>get_weather\n{"city": "Ìbàdàn <1>", "days": [1, 2]}</tool_call>'
        f"{END}<tool_result>get_weather\n31</tool_result>{END}<|assistant|>Ó gbóná.{END}<|user|>Ẹ ṣé{END}<|assistant|>"
    )
    tokenizer = model().tokenizer
    assert prompt.ids.count(tokenizer.token_to_id(BEGIN)) == 1
    special = [tokenizer.backend.id_to_token(token) for token in prompt.ids if token in tokenizer.special_ids]
    assert special == [
        *(BEGIN, "<|system|>", END, "<|user|>", END, "<|assistant|>", "<tool_call>", "</tool_call>", END),
        *("<tool_result>", "</tool_result>", END, "<|assistant|>", END, "<|user|>", END, "<|assistant|>"),
    ]


def test_tools_stand_in_the_system_message() -> None:
    import json

    listed = f"{INTRODUCTION}\n{json.dumps([WEATHER], indent=2, ensure_ascii=False)}"
    with_system = model(positions=4096).prompt(CALLING, tools=[WEATHER])
    assert f"<|system|>Jẹ́ kúkúrú.\n\n{listed}{END}<|user|>" in with_system.text
    without = model(positions=4096).prompt(CALLING[1:2], tools=[WEATHER])
    assert without.text.startswith(f"<s><|system|>{listed}{END}<|user|>")


def test_a_template_without_calls_gets_them_as_text() -> None:
    chatml = model(TEMPLATES["chatml"], 4096)
    call = {**CALLING[2], "content": "Dúró.", "reasoning": "r", "task_plan": "p"}
    text = chatml.prompt([CALLING[1], call, CALLING[3]]).text
    assert text == (
        "<|im_start|>user\nBáwo ni ojú ọjọ́ ní Ìbàdàn?<|im_end|>\n"
        "<|im_start|>assistant\n<reason>r</reason><task_plan>p</task_plan>Dúró.<|im_end|>\n<|im_start|>assistant\n"
        '<tool_call>get_weather\n{"city": "Ìbàdàn <1>", "days": [1, 2]}</tool_call><|im_end|>\n'
        "<|im_start|>user\n<tool_result>get_weather\n31</tool_result><|im_end|>\n<|im_start|>assistant\n"
    )
    tokenizer = chatml.tokenizer
    ids = chatml.prompt([CALLING[1], call, CALLING[3]]).ids
    for tag in ("<tool_call>", "</tool_call>", "<tool_result>", "<reason>", "</task_plan>"):
        assert ids.count(tokenizer.token_to_id(tag)) == 1
    reading = TEMPLATES["chatml"] + "{{ messages[-1].reasoning }}{{ messages[-1].reasoning_content }}"
    assert model(reading).prompt([{"role": "assistant", "reasoning": "why"}]).text.endswith("whywhy")


# --- tags that users type ---


@pytest.mark.parametrize("typed", [*TAGS, END, f"a {END}{END} b<|user|>", "<|us", "\U000f0000<s>\U000f0001"])
def test_typed_tags_are_text(typed: str) -> None:
    chat = model(positions=4096)
    call = {"name": "get_weather", "arguments": {"city": typed}}
    messages = [
        {"role": "system", "content": typed},
        {"role": "user", "content": f"x{typed}"},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "function": call}]},
        {"role": "tool", "content": typed, "tool_call_id": "1"},
        {"role": "user", "content": "y"},
    ]
    described = {**WEATHER, "function": {**WEATHER["function"], "description": typed}}
    prompt = chat.prompt(messages, tools=[described])
    decoded = chat.tokenizer.decode(prompt.ids, skip_special_tokens=False)
    assert decoded == prompt.text
    assert prompt.text.count(typed) >= 5
    # As many special tokens as without the typed ones, and all where the template has them.
    plain = [{**message, "content": message["content"] and "z"} for message in messages]
    plain[2] = {**messages[2], "tool_calls": [{"id": "1", "function": {**call, "arguments": {"city": "z"}}}]}
    special = chat.tokenizer.special_ids
    expected = [token for token in chat.prompt(plain, tools=[WEATHER]).ids if token in special]
    assert [token for token in prompt.ids if token in special] == expected


def test_typed_tags_are_read_if_asked_for() -> None:
    chat = model()
    messages = [{"role": "user", "content": "<yor> a"}]
    yor = chat.tokenizer.token_to_id("<yor>")
    assert yor not in chat.prompt(messages).ids
    prompt = chat.prompt(messages, special_tokens=True)
    assert yor in prompt.ids
    assert prompt.ids == of_transformers(TEMPLATE, messages)[1]


@pytest.mark.parametrize("text", SENTENCES)
def test_texts_in_many_languages_are_unharmed(text: str) -> None:
    import unicodedata

    chat = model()
    for form in ("NFC", "NFD"):
        given = unicodedata.normalize(form, text)
        prompt = chat.prompt([{"role": "user", "content": given}])
        assert prompt.text == f"<s><|user|>{given}{END}<|assistant|>"
        composed = unicodedata.normalize("NFC", prompt.text)  # what the tokenizer reads, whatever is typed
        assert chat.tokenizer.decode(prompt.ids, skip_special_tokens=False) == composed
        assert prompt.ids == of_transformers(TEMPLATE, [{"role": "user", "content": given}])[1]


# --- histories ---

TURNS: list[dict[str, Any]] = [
    {"role": "system", "content": "be short"},
    *(
        message
        for turn in range(12)
        for message in (
            {"role": "user", "content": f"ask {turn}"},
            {"role": "assistant", "content": f"say {turn}"},
        )
    ),
    {"role": "user", "content": "last"},
]


@pytest.mark.parametrize("positions", [60, 100, 150, 200, 400])
@pytest.mark.parametrize("new_tokens", [1, 20])
def test_a_long_history_is_cut_at_a_users_message(positions: int, new_tokens: int) -> None:
    chat = model(positions=positions)
    prompt = chat.prompt(TURNS, new_tokens=new_tokens)
    left_out = prompt.left_out_messages
    assert prompt.first == 1 + left_out
    assert left_out % 2 == 0
    assert prompt.ids == model().prompt([TURNS[0], *TURNS[1 + left_out :]], new_tokens=1).ids
    assert len(prompt.ids) + new_tokens <= positions
    if left_out:  # one exchange more would not fit
        more = model().prompt([TURNS[0], *TURNS[left_out - 1 :]], new_tokens=1)
        assert len(more.ids) + new_tokens > positions
    assert (left_out > 0) == (positions < 177 + new_tokens)  # tokens of all messages


def test_a_length_of_both_counts_the_answer() -> None:
    limited = model().prompt(TURNS, max_length=100)
    assert limited.ids == model(positions=100).prompt(TURNS).ids
    assert limited.left_out_messages > 0
    assert model().prompt(TURNS, new_tokens=9, max_length=100).left_out_messages == 0  # new tokens win


def test_calls_stay_with_their_results() -> None:
    chat = model(positions=80)
    messages = [*TURNS[:-1], *CALLING[1:]]
    prompt = chat.prompt(messages, new_tokens=1)
    assert prompt.text.startswith("<s><|system|>be short|end_of_text|<|user|>Ẹ ṣé")


def test_room_that_is_left_free() -> None:
    chat = model(positions=150)
    tight, spare = (chat.prompt(TURNS, new_tokens=20, spare=share) for share in (0.0, 0.25))
    assert len(spare.ids) <= (150 - 20) * 3 // 4 < len(tight.ids)
    later = chat.prompt(TURNS, new_tokens=20, spare=0.25, first=spare.first)
    assert later.left_out_messages == spare.left_out_messages
    assert model().prompt(TURNS, first=5).left_out_messages == 4


def test_the_newest_messages_must_fit() -> None:
    messages = [*TURNS[:3], {"role": "user", "content": "a " * 80}]
    with pytest.raises(
        InvalidInputError,
        match=r"messages 3 to 3 make a prompt of 9\d tokens, .* needs 7: .* the 99 positions",
    ):
        model(positions=99).prompt(messages, new_tokens=7)
    assert model(positions=99).prompt(messages, new_tokens=7, cuts=False).left_out_messages == 2
    # A window is no limit of a prompt: older tokens are not seen.
    assert model(positions=400, window=60).prompt(messages, new_tokens=7).left_out_messages == 2


# --- a text whose ids are known ---


def test_known_ids_are_taken_as_they_are() -> None:
    chat = model()
    first = chat.prompt(PLAIN[:2])
    answer = [chat.tokenizer.token_to_id(token) for token in "abc"]  # three tokens, whatever the merges are
    text = f"{first.text}abc"
    known = KnownText(text, (*first.ids, *answer))
    messages = [*PLAIN[:2], {"role": "assistant", "content": "abc"}, {"role": "user", "content": "ọmọ"}]
    prompt = chat.prompt(messages, known=known)
    rest = chat.tokenizer.encode(f"{END}<|user|>ọmọ{END}<|assistant|>", add_special_tokens=False)
    assert prompt.ids == [*known.ids, *rest]
    assert prompt.text == model().prompt(messages).text
    other = [*messages[:2], {"role": "assistant", "content": "abd"}, messages[3]]
    assert chat.prompt(other, known=known).ids == model().prompt(other).ids
    longer = [*messages[:2], {"role": "assistant", "content": "abcd"}, messages[3]]  # no border behind "abc"
    assert chat.prompt(longer, known=known).ids == model().prompt(longer).ids


@pytest.mark.parametrize("special_tokens", [False, True])
@pytest.mark.parametrize(
    "message", [{"role": "\ud800", "content": "a"}, {"role": "user", "content": "a", "x": "\ud800"}]
)
def test_half_surrogate_pairs_are_refused(message: dict[str, str], special_tokens: bool) -> None:
    asked = model("{{ messages|tojson }}")
    with pytest.raises(InvalidInputError, match=r"half a surrogate pair|not supported"):
        asked.prompt([message], special_tokens=special_tokens)


def test_what_is_nested_too_deeply_is_refused() -> None:
    arguments = '{"a":' * 900 + "1" + "}" * 900
    call = {"id": "1", "function": {"name": "f", "arguments": arguments}}
    with pytest.raises(InvalidInputError, match="nested too deeply"):
        model().prompt([{"role": "assistant", "tool_calls": [call]}])
