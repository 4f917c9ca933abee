"""Which letters the tokenizer makes of a text, against the library's own normalizers."""

import unicodedata

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.text.tokenizer import Tokenizer
from tests.tiny_tokenizer import tiny_tokenizer

DECOMPOSED = unicodedata.normalize("NFD", "Ọjọ́ kìíní")


def with_normalizer(*steps: normalizers.Normalizer) -> Tokenizer:
    backend = tiny_tokenizer()
    backend.normalizer = normalizers.Sequence(list(steps))
    return Tokenizer(backend)


@given(st.text(max_size=30))
def test_steps_that_change_letters_are_the_librarys(text: str) -> None:
    steps = [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    expected = normalizers.Sequence(steps).normalize_str(text)
    assert with_normalizer(*steps).normalized(text) == expected
    nested = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Sequence(steps)])
    assert with_normalizer(nested, normalizers.Replace(" ", "▁")).normalized(text) == expected


def test_nfc_is_pythons() -> None:
    assert Tokenizer(tiny_tokenizer()).normalized(DECOMPOSED) == unicodedata.normalize("NFC", DECOMPOSED)


@pytest.mark.parametrize("steps", [(), (normalizers.Prepend("▁"), normalizers.Replace(" ", "▁"))])
def test_without_such_a_step_a_text_stays(steps: tuple[normalizers.Normalizer, ...]) -> None:
    assert with_normalizer(*steps).normalized(DECOMPOSED) == DECOMPOSED
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, "a"))
    assert Tokenizer(backend).normalized(DECOMPOSED) == DECOMPOSED


def test_stop_strings_are_normalized_like_prompts(text_model) -> None:
    with EdgeGenerator.from_pretrained(text_model, num_threads=1) as generator:
        backend = generator.tokenizer.backend
        (target,) = backend.encode("ọjọ́", add_special_tokens=False).ids[:1]
        options = {"max_new_tokens": 6, "sequence_bias": {(target,): 100.0}}  # always this token
        whole = generator.generate("a", **options).text
        composed = backend.decode([target])
        decomposed = unicodedata.normalize("NFD", composed)
        assert composed != decomposed and whole == composed * 6
        result = generator.generate("a", stop_strings=decomposed, **options)
        assert (result.text, result.finish_reasons) == ("", ["stop"])
        streamed = list(generator.stream("a", stop_strings=[decomposed], **options))
        assert ["".join(token.text for token in streamed), streamed[-1].finish_reason] == ["", "stop"]
