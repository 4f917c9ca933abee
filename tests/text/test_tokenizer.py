import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sabiyarn_edge.errors import InvalidInputError, ModelFolderError
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
    for bad in ([-1], [1.5], ["a"]):
        with pytest.raises(InvalidInputError, match="no token id"):
            tokenizer.decode(bad)


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


# --- the end token ---


def test_the_end_token_is_found_by_its_usual_names():
    for name in NAMES:
        tokenizer = toy_tokenizer(name)
        assert tokenizer.find_eos_token_id() == tokenizer.token_to_id("|end_of_text|")


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json"])
@pytest.mark.parametrize("value", ["<translate>", {"content": "<translate>", "lstrip": False}])
def test_the_end_token_named_beside_the_tokenizer_wins(tmp_path, file, value):
    (tmp_path / file).write_text(json.dumps({"eos_token": value}))
    tokenizer = toy_tokenizer("byte-level")
    assert tokenizer.find_eos_token_id(tmp_path) == tokenizer.token_to_id("<translate>")


@pytest.mark.parametrize("content", ["{}", '{"eos_token": null}', '{"eos_token": "no such token"}'])
def test_a_file_that_names_no_end_token_is_passed_over(tmp_path, content):
    (tmp_path / "tokenizer_config.json").write_text(content)
    tokenizer = toy_tokenizer("byte-level")
    assert tokenizer.find_eos_token_id(tmp_path) == tokenizer.token_to_id("|end_of_text|")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff"])
def test_a_damaged_file_beside_the_tokenizer_is_named(tmp_path, content):
    (tmp_path / "special_tokens_map.json").write_bytes(content)
    with pytest.raises(ModelFolderError, match=r"special_tokens_map\.json cannot be read"):
        toy_tokenizer("byte-level").find_eos_token_id(tmp_path)
