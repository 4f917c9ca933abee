import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabiyarn_edge.text.incremental_decoding import _ByteLevelDecoder, _FullDecoder, incremental_decoder
from tests.toy_tokenizers import CORPUS, NAMES, toy_tokenizer

BYTE_LEVEL = ["byte-level", "bytes-only"]
WHOLE = ["llama-then-replace", "byte-level-then-strip"]

every_tokenizer = pytest.mark.parametrize("name", NAMES)


def draw_ids(data, tokenizer, max_size=60):
    """Ids from the whole vocabulary, special and unknown ones included; bytes and repeats are common."""
    some = data.draw(st.lists(st.integers(0, tokenizer.vocab_size), min_size=1, max_size=6))
    return data.draw(
        st.lists(st.integers(0, tokenizer.vocab_size) | st.sampled_from(some), max_size=max_size)
    )


def decode_one_by_one(decoder, ids):
    pieces = [decoder.push(token_id) for token_id in ids]
    return [*pieces, decoder.flush()]


@every_tokenizer
@pytest.mark.parametrize("skip", [True, False], ids=["without-special", "with-special"])
@settings(max_examples=40)
@given(data=st.data())
def test_pieces_join_to_what_the_library_decodes(name, skip, data):
    tokenizer = toy_tokenizer(name)
    ids = draw_ids(data, tokenizer)
    pieces = decode_one_by_one(incremental_decoder(tokenizer, skipped_ids=None if skip else frozenset()), ids)
    assert "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=skip)


@every_tokenizer
@settings(max_examples=40)
@given(data=st.data())
def test_after_a_prompt_pieces_join_to_what_the_library_adds_to_it(name, data):
    tokenizer = toy_tokenizer(name)
    prompt = tokenizer.encode(data.draw(st.sampled_from(["", "<yor> Gbogbo", *CORPUS])))
    if name not in (*BYTE_LEVEL, *WHOLE):  # there a prompt of ids must end with a whole character
        prompt += draw_ids(data, tokenizer)
    ids = draw_ids(data, tokenizer)
    pieces = decode_one_by_one(incremental_decoder(tokenizer, prompt_ids=prompt), ids)
    expected = tokenizer.decode([*prompt, *ids])[len(tokenizer.decode(prompt)) :]
    assert "".join(pieces) == expected


@every_tokenizer
@pytest.mark.parametrize("text", CORPUS)
def test_ordinary_text_does_not_wait_for_the_end(name, text):
    tokenizer = toy_tokenizer(name)
    ids = tokenizer.encode(text)
    pieces = decode_one_by_one(incremental_decoder(tokenizer), ids)
    assert "".join(pieces) == tokenizer.decode(ids)
    assert sum(map(bool, pieces)) > len(ids) / 4


@pytest.mark.parametrize("length", [1, 30])
@pytest.mark.parametrize("name", ["llama", "llama-strips-six"])
def test_stripping_ends_where_the_text_begins_to_show(name, length):
    tokenizer = toy_tokenizer(name)
    space, special = tokenizer.token_to_id("▁"), tokenizer.token_to_id("<yor>")
    ids = [special, *[space] * length, *tokenizer.encode("ni"), *[space] * length, *tokenizer.encode("bí")]
    assert "".join(decode_one_by_one(incremental_decoder(tokenizer), ids)) == tokenizer.decode(ids)


@pytest.mark.parametrize("length", [1, 30])
def test_a_prompt_may_end_within_a_run_of_bytes(length):
    tokenizer = toy_tokenizer("llama")
    prompt = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in "é".encode() * length]
    ids = [prompt[0], prompt[1], tokenizer.token_to_id("a")]
    pieces = decode_one_by_one(incremental_decoder(tokenizer, prompt_ids=prompt), ids)
    assert "".join(pieces) == "éa"


def test_decoders_that_see_the_whole_text_are_given_it():
    kinds = {name: type(incremental_decoder(toy_tokenizer(name))) for name in NAMES}
    assert {name for name, kind in kinds.items() if kind is _ByteLevelDecoder} == set(BYTE_LEVEL)
    assert {name for name, kind in kinds.items() if kind is _FullDecoder} == set(WHOLE)


@pytest.mark.parametrize("name", ["llama", "metaspace", "word-piece", "suffixed", "ctc", "no-decoder"])
def test_the_cost_of_a_token_does_not_grow(name, monkeypatch):
    tokenizer = toy_tokenizer(name)
    decode, decoded = tokenizer.decode, []
    monkeypatch.setattr(
        tokenizer, "decode", lambda ids, **how: decoded.append(len(ids)) or decode(ids, **how)
    )
    ids = tokenizer.encode(CORPUS[0]) * 100
    decode_one_by_one(incremental_decoder(tokenizer), ids)
    assert max(decoded) <= 64
    assert sum(decoded) <= 32 * len(ids)


def test_a_token_that_is_not_whole_gives_no_text_yet():
    tokenizer = toy_tokenizer("bytes-only")
    decoder = incremental_decoder(tokenizer)
    assert [decoder.push(token_id) for token_id in tokenizer.encode("ẹ́a")] == ["", "", "ẹ", "", "\u0301", "a"]


def test_a_run_of_bytes_is_judged_as_a_whole():
    tokenizer = toy_tokenizer("llama")
    good = [tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in "é".encode()]
    letter = tokenizer.token_to_id("a")
    decoder = incremental_decoder(tokenizer)
    assert [decoder.push(token_id) for token_id in [letter, *good, letter]] == ["a", "", "", "éa"]
    assert [decoder.push(token_id) for token_id in [*good, good[0], letter]] == [
        "",
        "",
        "",
        "\ufffd" * 3 + "a",
    ]
