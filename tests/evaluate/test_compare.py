"""compare_exports beside the export's own way of running a graph."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.evaluate import compare, compare_exports
from sabiyarn_edge.export.log_probs import log_softmax
from sabiyarn_edge.export.plain_decoder import PlainDecoder
from sabiyarn_edge.model_folder.config import ModelConfig
from sabiyarn_edge.text.tokenizer import Tokenizer
from tests.export.models import export_tiny
from tests.tiny_tokenizer import tiny_tokenizer

TEXTS = ["Gbogbo ènìyàn ni a bí ní òmìnira", "", "x", "ọmọ ilé àti ẹ̀tọ́ " * 3]


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    tokenizer = tiny_tokenizer()
    folders = []
    for dtype in ("float32", "int8"):
        exported = export_tiny(
            tmp_path_factory.mktemp(dtype),
            {"vocab_size": tokenizer.get_vocab_size(), "block_size": 96},
            dtype=dtype,
            kv_cache_dtype="float32",
            verify=False,
        )
        tokenizer.save(str(exported.folder / "tokenizer.json"))
        folders.append(exported.folder)
    return folders


def test_divergence_agreement_and_perplexity(exports: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "PIECE_TOKENS", 20)
    report = compare_exports(exports, TEXTS, threads=1)
    tokenizer = Tokenizer.from_file(exports[0] / "tokenizer.json")
    pieces = [
        ids[first : first + 20]
        for ids in map(tokenizer.encode, filter(None, TEXTS))
        for first in range(0, len(ids), 20)
        if len(ids) - first > 1
    ]
    divergence = agreed = tokens = 0.0
    loss = [0.0, 0.0]
    for ids in pieces:
        rows = []
        for folder in exports:
            decoder = PlainDecoder(folder, ModelConfig.load(folder), rows=1, capacity=64)
            rows.append([log_softmax(row) for row in decoder.step(np.array([ids]), row=0)])
        for place, (p, q) in enumerate(zip(*rows, strict=True)):
            if place + 1 == len(ids):
                break
            divergence += (np.exp(p) * (p - q)).sum()
            agreed += p.argmax() == q.argmax()
            tokens += 1
            loss[0] -= p[ids[place + 1]]
            loss[1] -= q[ids[place + 1]]
    first, second = report["models"].values()
    assert report["tokens"] == tokens
    # Sums of the same float32 logits in another order: 1e-6 of numbers near 6.
    assert second["mean_kl_divergence"] == pytest.approx(divergence / tokens, rel=1e-3, abs=1e-9)
    assert second["top1_agreement"] == agreed / tokens
    assert first["perplexity"] == pytest.approx(math.exp(loss[0] / tokens), rel=1e-5)
    assert second["perplexity"] == pytest.approx(math.exp(loss[1] / tokens), rel=1e-5)
    assert (first["mean_kl_divergence"], first["top1_agreement"]) == (0.0, 1.0)
    assert (first["dtype"], second["dtype"]) == ("float32", "int8")


def test_what_cannot_be_compared(exports: list[Path]) -> None:
    with pytest.raises(InvalidInputError, match="Give two models or more"):
        compare_exports(exports[:1], TEXTS)
    with pytest.raises(InvalidInputError, match="no text of two tokens"):
        compare_exports(exports, ["", "x"], threads=1)
    with pytest.raises(InvalidInputError, match="different tokenizers"):
        compare_exports([exports[0], "nano"], TEXTS, threads=1)
