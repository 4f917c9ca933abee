"""Small tokenizers of every kind of decoder, over text in Nigerian languages, made in memory."""

from __future__ import annotations

import functools
import json

import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

from sabiyarn_edge.text.tokenizer import Tokenizer

CORPUS = [
    "Gbogbo ènìyàn ni a bí ní òmìnira; iyì àti ẹ̀tọ́ kọ̀ọ̀kan sì dọ́gba.",
    "A mụrụ mmadụ nile n’ohere nakwa nha anya ugwu na ikike. Ọ̀ bụ ezi okwu.",
    "Su dai ’yan-adam, ana haihuwarsu ne duka ’yantattu, ƙasa ɗaya, ɓangare.",
    "All human beings are born free and equal. 👩🏿‍🌾🇳🇬 don't stop, they can't.",
]
SPECIAL = ["|end_of_text|", "<yor>", "<translate>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def _trained(
    model: models.Model, trainer: trainers.Trainer, pre_tokenizer: pre_tokenizers.PreTokenizer | None
) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    if pre_tokenizer is not None:
        backend.pre_tokenizer = pre_tokenizer
    backend.train_from_iterator(CORPUS, trainer)
    return backend


def _byte_level(vocab_size: int, decoder: decoders.Decoder) -> tokenizers.Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend = _trained(models.BPE(), trainer, pre_tokenizers.ByteLevel(add_prefix_space=False))
    backend.decoder = decoder
    return backend


def _sentencepiece(decoder: decoders.Decoder | None) -> tokenizers.Tokenizer:
    """BPE over characters with a mark for spaces and bytes for unknown characters, as in Llama."""
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<unk>", *SPECIAL, *BYTES], show_progress=False, limit_alphabet=60
    )
    backend = _trained(models.BPE(byte_fallback=True, unk_token="<unk>"), trainer, pre_tokenizers.Metaspace())
    # Training made special tokens of the bytes; they stay in the vocabulary as ordinary ones.
    values = json.loads(backend.to_str())
    values["added_tokens"] = [added for added in values["added_tokens"] if added["content"] not in BYTES]
    backend = tokenizers.Tokenizer.from_str(json.dumps(values))
    if decoder is not None:
        backend.decoder = decoder
    return backend


def _word_pieces(cleanup: bool) -> tokenizers.Tokenizer:
    trainer = trainers.WordPieceTrainer(
        vocab_size=250, special_tokens=["[UNK]", *SPECIAL, "n't", ".", "##n't"], show_progress=False
    )
    backend = _trained(models.WordPiece(unk_token="[UNK]"), trainer, pre_tokenizers.BertPreTokenizer())
    backend.decoder = decoders.WordPiece(cleanup=cleanup)
    return backend


def _suffixed() -> tokenizers.Tokenizer:
    trainer = trainers.BpeTrainer(
        vocab_size=250, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False
    )
    backend = _trained(models.BPE(end_of_word_suffix="</w>"), trainer, pre_tokenizers.Whitespace())
    backend.decoder = decoders.BPEDecoder()
    return backend


def _ctc() -> tokenizers.Tokenizer:
    backend = _suffixed()
    backend.decoder = decoders.CTC(pad_token="a", word_delimiter_token="n")
    return backend


def _llama_decoder(*last: decoders.Decoder) -> decoders.Decoder:
    return decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *last])


_MAKERS = {
    "byte-level": lambda: _byte_level(400, decoders.ByteLevel()),
    "bytes-only": lambda: _byte_level(256 + len(SPECIAL), decoders.ByteLevel()),
    "llama": lambda: _sentencepiece(_llama_decoder(decoders.Strip(" ", 1, 0))),
    "llama-strips-six": lambda: _sentencepiece(_llama_decoder(decoders.Strip(" ", 6, 0))),
    "gemma": lambda: _sentencepiece(_llama_decoder()),
    "metaspace": lambda: _sentencepiece(decoders.Metaspace()),
    "metaspace-never": lambda: _sentencepiece(decoders.Metaspace(prepend_scheme="never")),
    "word-piece": lambda: _word_pieces(cleanup=True),
    "word-piece-raw": lambda: _word_pieces(cleanup=False),
    "suffixed": _suffixed,
    "ctc": _ctc,
    "no-decoder": lambda: _sentencepiece(None),
    "llama-then-replace": lambda: _sentencepiece(_llama_decoder(decoders.Replace("~", "n"))),
    "byte-level-then-strip": lambda: _byte_level(
        400, decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    ),
}  # fmt: skip
NAMES = list(_MAKERS)


@functools.cache
def toy_tokenizer(name: str) -> Tokenizer:
    """One of NAMES, built once."""
    return Tokenizer(_MAKERS[name]())
