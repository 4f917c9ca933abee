"""A small byte-level BPE tokenizer, trained on a few words here."""

from __future__ import annotations

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

WORDS = "ọmọ ilé ẹ̀kọ́ ńlá ọjọ́ kìíní oṣù kejì ụlọ akwụkwọ ɗan adam ƙasa ƴanci Gbogbo ènìyàn ni a bí ní òmìnira"
END = "|end_of_text|"


def tiny_tokenizer(vocab_size: int = 320) -> tokenizers.Tokenizer:
    """256 bytes, END, and merges; its NFC normalizer joins letters that were typed in parts."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([WORDS] * 4, trainer)
    return tokenizer
