"""What the report says of an export's accuracy, against the NumPy oracle."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import sabiyarn_edge.export.accuracy as accuracy_module
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.export import Accuracy, ExportReport, export_model
from sabiyarn_edge.export.weight_format import Matrix
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint, random_tensors
from tests.export.models import Exported, export_tiny
from tests.reference_gptjx import ReferenceGPTJX
from tests.tiny_tokenizer import tiny_tokenizer

TEXT = "Gbogbo ènìyàn ni a bí ní òmìnira; ọmọ ilé ẹ̀kọ́, ọjọ́ kìíní oṣù kejì. Ụlọ akwụkwọ, ɗan adam, ƙasa."
SHAPE = {"vocab_size": 320, "block_size": 48}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_tiny_checkpoint(tmp_path_factory.mktemp("accuracy") / "checkpoint", **SHAPE)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture(scope="module")
def text_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def test_equals_the_oracle(checkpoint: Path, text_file: Path, tmp_path: Path) -> None:
    """Pieces of block_size tokens, each from position 0 on; float16 weights, whose products are exact."""
    report = export_model(
        checkpoint,
        tmp_path / "model",
        dtype="float16",
        kv_cache_dtype="float32",
        evaluate=text_file,
        progress=False,
    )
    exported = Exported(
        tmp_path / "model", report, {"n_layer": 2, "n_heads": 2}, dict(random_tensors(**SHAPE))
    )
    original = ReferenceGPTJX(exported.tensors, n_layer=2, n_heads=2)
    ids = np.array(tiny_tokenizer().encode(TEXT).ids)
    assert len(ids) > 48
    losses, divergences, agreed = np.zeros((2, 0)), [], []
    for piece in np.split(ids, range(48, len(ids), 48)):
        log_p, log_q = (log_softmax(model.logits(piece)) for model in (original, exported.oracle()))
        steps = (np.arange(len(piece) - 1), piece[1:])
        losses = np.concatenate([losses, [-log_p[steps], -log_q[steps]]], axis=1)
        divergences += (np.exp(log_p) * (log_p - log_q)).sum(axis=-1).tolist()
        agreed += (log_p.argmax(axis=-1) == log_q.argmax(axis=-1)).tolist()
    accuracy = report.accuracy
    assert accuracy is not None
    assert (accuracy.text, accuracy.tokens) == (f"{text_file}, in pieces of 48 tokens", len(ids))
    expected = np.exp(losses.mean(axis=1))
    # float32 logits of about 3 have steps of 2e-7; thousands of additions make that 1e-5 at most
    assert accuracy.perplexity_float32 == pytest.approx(expected[0], rel=1e-5)
    assert accuracy.perplexity == pytest.approx(expected[1], rel=1e-5)
    assert accuracy.perplexity_change == pytest.approx(expected[1] / expected[0] - 1, abs=2e-5)
    assert accuracy.mean_kl_divergence == pytest.approx(np.mean(divergences), rel=1e-2)
    assert accuracy.top1_agreement == np.mean(agreed)


def test_equals_the_definitions_where_both_differ_much(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logits of two models that have nothing to do with each other: every average and direction shows."""
    rng = np.random.default_rng(3)
    pieces = [torch.from_numpy(rng.integers(0, 11, (1, length))) for length in (5, 2, 3)]
    original, export = (
        {piece: rng.normal(0, 2, (piece.shape[1], 11)).astype(np.float32) for piece in pieces}
        for _ in range(2)
    )
    waiting = iter(pieces)
    decoder = SimpleNamespace(lengths=[0], step=lambda ids, row: export[next(waiting)])
    monkeypatch.setattr(accuracy_module, "PlainDecoder", lambda *args, **options: decoder)
    done: list[int] = []
    accuracy = accuracy_module.measure_accuracy(
        lambda piece: SimpleNamespace(logits=torch.from_numpy(original[piece])[None]),  # type: ignore[arg-type]
        Path("unused"),
        None,  # type: ignore[arg-type]
        pieces,
        "made up",
        progress=done.append,
    )
    p, q = (np.concatenate([log_softmax(made[piece]) for piece in pieces]) for made in (original, export))
    targets = [(row, piece) for piece in pieces for row in range(piece.shape[1])]
    steps = [
        (i, int(piece[0, row + 1])) for i, (row, piece) in enumerate(targets) if row + 1 < piece.shape[1]
    ]
    losses = [np.mean([-log_probs[step] for step in steps]) for log_probs in (p, q)]
    assert done == [5, 2, 3]
    assert (accuracy.text, accuracy.tokens) == ("made up", 10)
    assert [accuracy.perplexity_float32, accuracy.perplexity] == pytest.approx(np.exp(losses), rel=1e-5)
    assert accuracy.mean_kl_divergence == pytest.approx((np.exp(p) * (p - q)).sum() / 10, rel=1e-5)
    assert accuracy.top1_agreement == np.mean(p.argmax(axis=-1) == q.argmax(axis=-1)) < 1


def test_a_matrix_of_zeros_has_no_error() -> None:
    zeros = Matrix("zeros", (2, 3), lambda: np.zeros((2, 3), np.float32))
    weights: Any = SimpleNamespace(
        restored=lambda matrix: matrix.load(),
        weight_type=lambda matrix: "float16",
        block_size=lambda matrix: None,
    )
    error = accuracy_module.weight_errors([zeros], weights)["zeros"]
    assert (error.largest_error, error.relative_error) == (0, 0)


def test_errors_of_weights_equal_the_twin(tmp_path: Path) -> None:
    options: dict[str, Any] = {"dtype": "int4", "rounding": "nearest", "keep_int8": ["lm_head", "first"]}
    exported = export_tiny(tmp_path, {"n_embd": 32}, verify=False, **options)
    exported = replace(exported, int8_names=("wte", "h.0"))
    stored = exported.oracle_tensors()
    matrices = {name for name, values in exported.tensors.items() if values.ndim == 2}
    assert exported.report.weights.keys() == matrices
    for name in matrices:
        error, values = exported.report.weights[name], exported.tensors[name].astype(np.float64)
        assert (error.storage, error.block_size) == (
            exported.dtype_of(name),
            128 if "mlp.c_proj" in name else 32,
        )
        difference = stored[name] - values
        assert error.largest_error == pytest.approx(np.abs(difference).max(), rel=1e-4)
        relative = np.sqrt((difference**2).mean() / (values**2).mean())
        assert error.relative_error == pytest.approx(relative, rel=1e-4)
    assert exported.report.accuracy is None


def test_better_rounding_is_nearer_to_float32(tmp_path: Path) -> None:
    """By divergence on text that the model wrote: gptq, search, nearest; and int8 before all of them."""
    shape = {"n_embd": 64, "n_heads": 4, "n_layer": 3, "vocab_size": 211}
    variants: dict[str, dict[str, Any]] = {
        "int8": {"dtype": "int8"},
        "gptq": {"dtype": "int4"},
        "search": {"dtype": "int4", "rounding": "search"},
        "nearest": {"dtype": "int4", "rounding": "nearest"},
    }
    found = {}
    for name, options in variants.items():
        accuracy = export_tiny(tmp_path / name, shape, **options).report.accuracy
        assert accuracy is not None
        assert accuracy.text == "8 pieces of 64 tokens that the model wrote"
        found[name] = accuracy.mean_kl_divergence
    assert found["int8"] < found["gptq"] < 0.8 * found["nearest"]
    assert found["search"] < found["nearest"]


def test_the_same_export_again_is_the_same(checkpoint: Path, text_file: Path, tmp_path: Path) -> None:
    """What the model writes is drawn from a fixed seed; a text that is given makes other weights."""
    hashes = [
        export_model(
            checkpoint, tmp_path / name, dtype="int4", verify=False, progress=False, calibration=text
        ).weights_hash
        for name, text in (("a", None), ("b", None), ("c", text_file))
    ]
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_text_too_short_for_gptq_is_noted(checkpoint: Path, text_file: Path, tmp_path: Path) -> None:
    def notes(text: str, **options: Any) -> list[str]:
        path = tmp_path / "text.txt"
        path.write_text(text, encoding="utf-8")
        return export_model(
            checkpoint,
            tmp_path / "model",
            calibration=path,
            force=True,
            verify=False,
            progress=False,
            **options,
        ).notes

    widest = 4 * json.loads((checkpoint / "config.json").read_text())["n_embd"]
    many = text_file.read_text(encoding="utf-8")
    while len(tiny_tokenizer().encode(many).ids) < widest:
        many *= 2
    usual = notes(many, dtype="int4")
    few = len(tiny_tokenizer().encode(many[:20]).ids)
    noted = notes(many[:20], dtype="int4")
    assert noted[: len(usual)] == usual
    assert f"has {few} tokens, too few for gptq" in noted[-1] and f"at least {widest}" in noted[-1]
    assert notes(many[:20], dtype="int8", kv_cache_dtype="int8") == usual


@pytest.mark.parametrize("option", ["calibration", "evaluate"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"text .*text\.txt is empty\. Give text of the kind"),
        (b" \n\t\n", r"text .*text\.txt is empty"),
        (b"\xef\xbb\xbf", r"text .*text\.txt is empty"),
        ("bí".encode("latin-1"), r"text .*text\.txt is not UTF-8: byte 1 is 0xed\. Convert it"),
        (None, r"cannot read the \w+ text .*text\.txt: No such file"),
        (b"a", "the text is 1 token long; at least 2 are needed"),
    ],
)
def test_bad_texts(
    checkpoint: Path, tmp_path: Path, option: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / "text.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InvalidInputError, match=message):
        export_model(checkpoint, tmp_path / "model", dtype="int4", progress=False, **{option: path})
    assert not (tmp_path / "model").exists()


def test_a_text_needs_the_models_own_tokenizer(text_file: Path, tmp_path: Path) -> None:
    source = make_tiny_checkpoint(tmp_path / "checkpoint")
    with pytest.raises(InvalidInputError, match=r"has no tokenizer\.json to make ids of it"):
        export_model(source, tmp_path / "model", evaluate=text_file, progress=False)
    tiny_tokenizer().save(str(source / "tokenizer.json"))
    with pytest.raises(InvalidInputError, match="vocab_size is 97: it belongs to another model"):
        export_model(source, tmp_path / "model", evaluate=text_file, progress=False)


def test_the_report_names_the_rounding(checkpoint: Path, tmp_path: Path) -> None:
    def rounding(name: str, **options: Any) -> ExportReport:
        return export_model(checkpoint, tmp_path / name, verify=False, progress=False, **options)

    assert rounding("a").rounding is None
    assert rounding("b", dtype="int4").rounding == "gptq"
    assert rounding("c", dtype="int4", rounding="search").rounding == "search"


def test_changes_are_fractions() -> None:
    accuracy = Accuracy(
        text="", tokens=2, perplexity_float32=8.0, perplexity=10.0, mean_kl_divergence=0, top1_agreement=1
    )
    assert accuracy.perplexity_change == 0.25
