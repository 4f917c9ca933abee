"""Control tokens that a user types are text, with every kind of model."""

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from sabiyarn_edge.text.tokenizer import Tokenizer
from tests.tiny_tokenizer import tiny_tokenizer
from tests.toy_tokenizers import CORPUS, SPECIAL, toy_tokenizer

TAGS = ["<s>", "<yor>"]


def unigram() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<unk>", *TAGS], unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator([*CORPUS, "< s > yor <"] * 4, trainer)
    return backend


def word_piece() -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.WhitespaceSplit(), decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=["[UNK]", *TAGS], show_progress=False)
    backend.train_from_iterator([*CORPUS, "<s> <yor>"] * 4, trainer)
    return backend


def merged_tags() -> tokenizers.Tokenizer:
    """BPE that has merges to its tags, too."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.train_from_iterator(["<s> <yor>"] * 9, trainer)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens(TAGS)
    return backend


@pytest.mark.parametrize("make", [unigram, word_piece, merged_tags])
def test_files_of_every_kind_load_and_keep_typed_tags_text(make, tmp_path) -> None:
    backend = make()
    backend.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(tmp_path / "tokenizer.json")
    text = "Gbogbo ni"
    assert tokenizer.encode(text) == backend.encode(text).ids
    ids = backend.encode(text).ids
    assert tokenizer.decode(ids) == backend.decode(ids)
    tags = {tokenizer.token_to_id(tag) for tag in TAGS}
    assert tags == tags & set(tokenizer.encode("<s> <yor>"))
    read = tokenizer.encode_parts([("<s>", True), ("<yor> bí <s>", False)])
    assert [token for token in read if token in tags] == [tokenizer.token_to_id("<s>")]


def test_words_and_white_space_that_were_added_are_no_control_tokens() -> None:
    backend = tiny_tokenizer()
    backend.add_tokens(["ẹgbẹ́", "\n\n", "...", AddedToken("<tool_call>"), "[INST]"])
    backend.add_special_tokens(["begin"])
    tokenizer = Tokenizer(backend)
    shown = {backend.id_to_token(token) for token in tokenizer.parts.control_ids}
    assert shown == {"|end_of_text|", "<tool_call>", "[INST]", "begin"}
    text = "ẹgbẹ́\n\n..."
    assert tokenizer.encode_parts([(text, False)]) == tokenizer.encode(text)


def test_where_control_tokens_stand() -> None:
    backend = tiny_tokenizer()
    backend.normalizer = normalizers.NFKC()
    backend.add_tokens([AddedToken("<tool_call>", lstrip=True, rstrip=True)])
    tokenizer = Tokenizer(backend)
    text = "ẹ́ a  <tool_call> b ＜tool_call＞|end_of_text|"
    spans = tokenizer.parts.control_spans(text)
    assert [text[first:end] for first, end in spans] == ["<tool_call>", "＜tool_call＞", "|end_of_text|"]


words = st.sampled_from(["<yor>", "|end_of_text|", "ẹ̀kọ́", " ", "a", "<y", "or>", "👩🏿‍🌾", "\n"])


@given(st.lists(st.tuples(st.lists(words, max_size=5).map("".join), st.booleans()), max_size=5))
def test_ids_and_spans_give_the_text_back(parts) -> None:
    tokenizer = toy_tokenizer("byte-level")
    joined = "".join(text for text, _ in parts)
    encoded = tokenizer.parts.encode(parts)
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == joined
    special = {tokenizer.token_to_id(token) for token in SPECIAL}
    trusted = [trusted for text, trusted in parts for _ in text]
    for token, (first, end) in zip(encoded.ids, encoded.spans, strict=True):
        if token in special:
            assert joined[first:end] in SPECIAL and all(trusted[first:end])
