import json
import sys
import threading
import time

import numpy as np
import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from sabiyarn_edge.errors import InvalidInputError, ModelFolderError
from sabiyarn_edge.text.parts import _LONG_TEXT
from sabiyarn_edge.text.tokenizer import Tokenizer
from tests.toy_tokenizers import CORPUS, NAMES, SPECIAL, toy_tokenizer


@pytest.fixture
def saved(tmp_path):
    """The file of the byte-level toy tokenizer."""
    toy_tokenizer("byte-level").backend.save(str(tmp_path / "tokenizer.json"))
    return tmp_path / "tokenizer.json"


@given(st.text(max_size=40))
def test_byte_level_text_survives_encoding_and_decoding(text):
    tokenizer = toy_tokenizer("byte-level")
    assert tokenizer.decode(tokenizer.encode(text), skip_special_tokens=False) == text


def test_special_tokens_are_one_id_and_are_left_out_of_text():
    tokenizer = toy_tokenizer("byte-level")
    ids = tokenizer.encode("<yor>Ọ̀rọ̀|end_of_text|")
    assert ids[0] == tokenizer.token_to_id("<yor>")
    assert ids[-1] == tokenizer.token_to_id("|end_of_text|")
    assert tokenizer.special_ids == {tokenizer.token_to_id(token) for token in SPECIAL}
    assert tokenizer.decode(ids) == "Ọ̀rọ̀"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<yor>Ọ̀rọ̀|end_of_text|"


def test_a_file_that_asks_for_truncation_and_padding_is_not_obeyed(saved):
    backend = toy_tokenizer("byte-level").backend
    text = json.loads(saved.read_text("utf-8"))
    text["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    text["padding"] = {
        "strategy": {"Fixed": 100}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0,
        "pad_type_id": 0, "pad_token": "x",
    }  # fmt: skip
    saved.write_text(json.dumps(text), "utf-8")
    assert Tokenizer.from_file(saved).encode(CORPUS[0]) == backend.encode(CORPUS[0]).ids


# --- token_bytes ---


@given(st.data())
def test_token_bytes_of_byte_level_join_to_the_text(data):
    tokenizer = toy_tokenizer("byte-level")
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 5)))
    joined = b"".join(tokenizer.token_bytes(token_id) for token_id in ids)
    assert joined.decode("utf-8", errors="replace") == tokenizer.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("ctc", "no-decoder", "suffixed")])
@pytest.mark.parametrize("text", CORPUS)
def test_token_bytes_of_other_tokenizers_join_to_the_text_but_for_its_beginning(name, text):
    tokenizer = toy_tokenizer(name)
    ids = tokenizer.encode(text)
    joined = b"".join(tokenizer.token_bytes(token_id) for token_id in ids)
    assert joined.decode().strip(" ") == tokenizer.decode(ids, skip_special_tokens=False).strip(" ")


def test_token_bytes_of_byte_tokens():
    llama, metaspace = toy_tokenizer("llama"), toy_tokenizer("metaspace")
    token_id = llama.token_to_id("<0xE1>")
    assert llama.token_bytes(token_id) == b"\xe1"
    assert metaspace.token_bytes(token_id) == b"<0xE1>"  # no ByteFallback in its decoder
    assert llama.token_bytes(llama.token_to_id("<0x00>")) == b"\0"


@pytest.mark.parametrize("token_id", [-1, 10**6, 2**40])
@pytest.mark.parametrize("name", ["byte-level", "llama"])
def test_an_unknown_id_has_no_bytes(name, token_id):
    assert toy_tokenizer(name).token_bytes(token_id) == b""
    assert not toy_tokenizer(name).has_token(token_id)


# --- long texts ---


def test_a_long_text_has_the_ids_of_its_lines():
    tokenizer = toy_tokenizer("byte-level")
    lines = ["Ọ̀rọ̀ abc 123\n"] * (_LONG_TEXT // 12)
    text = "".join(lines)
    assert len(text) > _LONG_TEXT
    assert tokenizer.encode(text) == [token for line in lines for token in tokenizer.encode(line)]


def test_other_threads_go_on_while_a_long_text_is_encoded():
    """No thread is made to release the GIL here: the other one runs while encode() has released it itself."""
    tokenizer, text = toy_tokenizer("byte-level"), "abc 123 " * 100_000
    ticks, stop = [0], threading.Event()

    def tick():
        while not stop.wait(1e-4):
            ticks[0] += 1

    thread = threading.Thread(target=tick)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e3)
    try:
        thread.start()
        time.sleep(0.01)
        before = ticks[0]
        tokenizer.encode(text)
        assert ticks[0] > before + 10  # one or two while its characters were checked, and so on
    finally:
        sys.setswitchinterval(interval)
        stop.set()
        thread.join()


# --- bad input ---


@pytest.mark.parametrize("text", [None, 5, b"bytes", ["a list"]])
def test_only_text_is_encoded(text):
    with pytest.raises(InvalidInputError, match=f"the text is a {type(text).__name__}; it must be a str"):
        toy_tokenizer("byte-level").encode(text)


def test_half_a_surrogate_pair_is_refused_with_its_position():
    with pytest.raises(InvalidInputError, match=r"the text holds '\\udcc3' at position 2"):
        toy_tokenizer("byte-level").encode("ab\udcc3c")


def test_ids_may_be_numpys_but_not_negative_or_fractions():
    tokenizer = toy_tokenizer("byte-level")
    ids = tokenizer.encode("Ọ̀rọ̀")
    assert tokenizer.decode(np.array(ids)) == "Ọ̀rọ̀"
    for bad in (-1, 1.5, "a", 2**32, 2**70, None):
        with pytest.raises(
            InvalidInputError, match=r"^the ids hold .* at index 1, which is no token id: these are 0 to"
        ):
            tokenizer.decode([ids[0], bad])


def test_ids_outside_of_the_models_vocabulary_are_refused():
    backend = toy_tokenizer("byte-level").backend
    num_ids = backend.get_vocab_size() + 3
    tokenizer = Tokenizer(backend, num_ids)
    assert tokenizer.decode([num_ids - 1]) == ""  # the model's, without a token
    with pytest.raises(
        InvalidInputError, match=rf"hold {num_ids} at index 0, .*: these are 0 to {num_ids - 1}\.$"
    ):
        tokenizer.decode([num_ids])


def test_a_missing_file_is_an_error_with_a_way_out(tmp_path):
    with pytest.raises(ModelFolderError, match=r"there is no file .*tokenizer.json.* give ids instead"):
        Tokenizer.from_file(tmp_path / "tokenizer.json")


@pytest.mark.parametrize("damage", ["empty", "cut", "not-utf8", "other-json"])
def test_a_damaged_file_is_an_error_that_names_it(saved, damage):
    whole = saved.read_bytes()
    damaged = {
        "empty": b"",
        "cut": whole[: len(whole) // 2],
        "not-utf8": b"\xff" + whole,
        "other-json": b"[1]",
    }
    saved.write_bytes(damaged[damage])
    with pytest.raises(ModelFolderError, match=r"tokenizer\.json is not a tokenizer \(.*copy it again"):
        Tokenizer.from_file(saved)


# --- encode_parts ---


@given(st.text(max_size=20), st.text(max_size=20))
def test_parts_without_special_tokens_are_encoded_as_the_joined_text(first, second):
    tokenizer = toy_tokenizer("byte-level")
    joined = f"<yor>{first} {second}|end_of_text|"
    parts = [("<yor>", True), (first, False), (" ", True), (second, False), ("|end_of_text|", True)]
    assert tokenizer.encode_parts(parts) == tokenizer.encode(joined)


def test_special_tokens_of_a_users_part_are_text():
    tokenizer = toy_tokenizer("byte-level")
    yor, end = tokenizer.token_to_id("<yor>"), tokenizer.token_to_id("|end_of_text|")
    for typed in ("<yor>", "a <yor> b", "|end_of_text||end_of_text|", " <yor>", "<yor"):
        ids = tokenizer.encode_parts([("<yor>", True), (typed, False), ("|end_of_text|", True)])
        assert (ids[0], ids[-1]) == (yor, end)
        assert not {yor, end} & set(ids[1:-1])
        assert tokenizer.decode(ids[1:-1]) == typed
    # A tag that a template's part completes is not one either.
    assert yor not in tokenizer.encode_parts([("say ", True), ("<yor", False), (">", True)])


@pytest.mark.parametrize("strips", [False, True])
def test_what_surrounds_a_text_is_added_once(strips):
    backend = toy_tokenizer("byte-level").backend
    backend = tokenizers.Tokenizer.from_str(backend.to_str())
    backend.add_special_tokens(
        [tokenizers.AddedToken(tag, lstrip=strips, rstrip=strips) for tag in ("<s>", "<hau>")]
    )
    begin = backend.token_to_id("<s>")
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", begin)]
    )
    tokenizer = Tokenizer(backend)
    parts = [("<hau>", True), ("  a <hau> <s> b ", False), (" <hau>", True)]
    ids = tokenizer.encode_parts(parts)
    hausa = tokenizer.token_to_id("<hau>")
    assert [ids.count(begin), ids.count(hausa)] == [1, 2]
    assert ids[:2] == [begin, hausa]
    assert ids[-1] == hausa
    assert tokenizer.encode_parts(parts, add_special_tokens=False) == ids[1:]
    text = tokenizer.decode(ids)
    assert "a <hau> <s> b" in text
    assert tokenizer.encode_parts([("<hau> a", True)]) == tokenizer.encode("<hau> a")


def test_half_a_surrogate_pair_in_a_part_is_refused():
    with pytest.raises(InvalidInputError, match="half a surrogate pair"):
        toy_tokenizer("byte-level").encode_parts([("a", True), ("\ud800", False)])


def test_a_token_for_unknown_letters_that_is_none(tmp_path):
    model = {"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "nowhere"}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"version": "1.0", "added_tokens": [], "model": model}), encoding="utf-8")
    with pytest.raises(ModelFolderError, match=r"cannot encode the text .*nowhere"):
        Tokenizer.from_file(path).encode("ab")


@pytest.mark.parametrize("name", ["added_tokens", "added\\u005ftokens"])
@pytest.mark.parametrize(("count", "length"), [(1, 6000), (300, 1500)])
def test_added_tokens_that_take_minutes_to_prepare_are_refused(saved, name, count, length):
    values = json.loads(saved.read_text("utf-8"))
    token = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    values["added_tokens"] = [
        {**token, "id": 1000 + i, "content": f"{i:04}" + "[" * length} for i in range(count)
    ]
    saved.write_text(json.dumps(values).replace('"added_tokens"', f'"{name}"'), "utf-8")
    with pytest.raises(
        ModelFolderError, match=f"its {count} added tokens have up to {length + 4} characters"
    ):
        Tokenizer.from_file(saved)
