import functools
import unicodedata
from random import Random

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from sabiyarn_edge.text.streaming import StreamedToken, TextStream
from tests.toy_tokenizers import CORPUS, NAMES, toy_tokenizer

LETTERS = [
    *"abgnọẹṣńǹḿàáèéìíòóùúịụṅɓɗƙƴ '’.,\n",
    *"\u0300\u0301\u0304\u0323\u0329",  # grave, acute, macron, dot and line below
    *["gb", "ọ̀", "ẹ́", "Ẹ̀", "🇳🇬", "👩🏿‍🌾", "❤️", "1️⃣", "👍🏾"],
]
TEXTS = st.lists(st.sampled_from(LETTERS) | st.sampled_from(CORPUS), max_size=20).map("".join)
SEEDS = st.integers(0, 2**32)
FORMS = st.sampled_from(["NFC", "NFD"])


@functools.cache
def ids_by_bytes(name):
    tokenizer = toy_tokenizer(name)
    return {tokenizer.token_bytes(token_id): token_id for token_id in range(3, tokenizer.vocab_size)}


def random_split(name, text, seed):
    """Ids whose bytes are the text's, split at random among all tokens that fit, also inside characters."""
    data, ids, random = text.encode(), [], Random(seed)
    by_bytes = ids_by_bytes(name)
    longest = max(map(len, by_bytes))
    while data:
        heads = [data[:length] for length in range(1, min(longest, len(data)) + 1)]
        head = random.choice([head for head in heads if head in by_bytes])
        ids.append(by_bytes[head])
        data = data[len(head) :]
    return ids


def stream_all(stream, ids, finish_reason=""):
    pieces = [stream.push(token_id) for token_id in ids]
    return [*pieces, stream.flush(finish_reason)]


def borders(pieces):
    ends = [0]
    for piece in pieces:
        ends.append(ends[-1] + len(piece))
    return set(ends)


def assert_good_stream(pieces, text):
    assert "".join(pieces) == text
    assert borders(pieces) <= borders(regex.findall(r"\X", text))  # oracle of Unicode's letter borders


@pytest.mark.parametrize("name", ["byte-level", "bytes-only"])
@given(data=st.data())
def test_letters_arrive_whole_however_tokens_split_them(name, data):
    tokenizer = toy_tokenizer(name)
    text = unicodedata.normalize(data.draw(FORMS), data.draw(TEXTS))
    ids = random_split(name, text, data.draw(SEEDS))
    assert tokenizer.decode(ids) == text
    pieces = stream_all(TextStream(tokenizer), ids)
    assert_good_stream(pieces, text)
    assert "\ufffd" not in "".join(pieces)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=40)
@given(data=st.data())
def test_any_tokens_stream_to_what_decode_gives(name, data):
    tokenizer = toy_tokenizer(name)
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size - 1), max_size=50))
    assert_good_stream(stream_all(TextStream(tokenizer), ids), tokenizer.decode(ids))
    assert TextStream(tokenizer).join(ids, "length") == tokenizer.decode(ids)


@given(data=st.data())
def test_the_stop_string_and_what_follows_is_never_shown(data):
    tokenizer = toy_tokenizer("byte-level")
    text = data.draw(TEXTS)
    stops = data.draw(st.lists(st.text(st.sampled_from("abọẹ\u0301\n "), min_size=1, max_size=4), max_size=3))
    ids = random_split("byte-level", text, data.draw(SEEDS))
    # Generation ends with the first token whose bytes complete a stop string.
    reason, so_far = "length", b""
    for count, token_id in enumerate(ids, start=1):
        so_far += tokenizer.token_bytes(token_id)
        if any(stop.encode() in so_far for stop in stops):
            ids, reason = ids[:count], "stop"
            break
    whole = tokenizer.decode(ids)
    first = min((whole.find(stop) for stop in stops if stop in whole), default=len(whole))
    pieces = stream_all(TextStream(tokenizer, stop_strings=stops), ids, reason)
    assert_good_stream(pieces, whole[:first])
    assert TextStream(tokenizer, stop_strings=stops).join(ids, reason) == whole[:first]
    assert "".join(stream_all(TextStream(tokenizer), ids, reason)) == whole  # kept when asked for


def test_a_prompts_letters_tell_the_decoder_that_this_is_no_beginning():
    tokenizer = toy_tokenizer("metaspace")
    ids = tokenizer.encode("ènìyàn ni")
    assert "".join(stream_all(TextStream(tokenizer), ids)) == "ènìyàn ni"
    assert (
        "".join(stream_all(TextStream(tokenizer, prompt_ids=tokenizer.encode("Gbogbo")), ids)) == " ènìyàn ni"
    )


def test_special_tokens_are_shown_only_on_request():
    tokenizer = toy_tokenizer("byte-level")
    ids = tokenizer.encode("<yor>Ọ̀rọ̀|end_of_text|")
    assert "".join(stream_all(TextStream(tokenizer), ids)) == "Ọ̀rọ̀"
    shown = stream_all(TextStream(tokenizer, skip_special_tokens=False), ids)
    assert "".join(shown) == "<yor>Ọ̀rọ̀|end_of_text|"


def test_a_streamed_token_has_no_finish_reason_before_the_end():
    token = StreamedToken(text="Ọ̀", token_id=7, index=0)
    assert (token.text, token.token_id, token.index, token.finish_reason) == ("Ọ̀", 7, 0, "")
