"""nano's tokenizer: byte-level BPE with SabiYarn's tags as special tokens."""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

__all__ = ["END_OF_TEXT", "LANGUAGES", "SPECIAL_TOKENS", "language_tag", "train_tokenizer"]

LANGUAGES = ("eng", "yor", "hau", "ibo", "pcm", "fuv", "ibb", "tiv", "bin", "knc")
"""ISO 639-3: English, Yoruba, Hausa, Igbo, Nigerian Pidgin, Nigerian Fulfulde, Ibibio, Tiv, Edo and Central
Kanuri."""

END_OF_TEXT = "|end_of_text|"
TASK_TAGS = ("<translate>", "<diacritize>", "<correct>", "<identify>", "<lang_id>")
"""SabiYarn's, as far as nano learns what they ask for."""

VOCAB_SIZE = 2048

# A word is letters with their combining marks, and the space before it. GPT-2's own pattern would end a word
# at every combining mark, and Yoruba's dotted letters with a tone have one even in NFC: o with a dot below is
# one character, the tone above it another.
WORDS = r" ?[\p{L}\p{M}]+| ?\p{N}| ?[^\s\p{L}\p{M}\p{N}]+|\s+"


def language_tag(language: str) -> str:
    """The special token that announces a text in a language, e.g. "<yor>"."""
    return f"<{language}>"


SPECIAL_TOKENS = (END_OF_TEXT, *TASK_TAGS, *map(language_tag, LANGUAGES))
"""In the order of their ids, from 0."""


def train_tokenizer(texts: Iterable[str], *, vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """Learn the merges from texts. The same texts give the same tokenizer.

    All 256 bytes are tokens, so every text has ids. Text is brought to NFC first, so letters that were typed
    with separate combining marks (NFD) get the same ids. Tags swallow the white space around them:
    "<yor> Gbogbo" and "<yor>Gbogbo" are the same.

    Args:
        vocab_size: entries at most, the special tokens and 256 bytes included; fewer if the texts have no
            more pairs.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[_special(content) for content in SPECIAL_TOKENS],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def _special(content: str) -> AddedToken:
    is_tag = content != END_OF_TEXT
    return AddedToken(content, special=True, normalized=False, lstrip=is_tag, rstrip=is_tag)
