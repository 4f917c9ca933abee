"""The comparison that decides whether an export is written: it must see what it is there to see."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sabiyarn_edge.errors import ExportError
from sabiyarn_edge.export.reference import Reference, make_reference, split_positions
from sabiyarn_edge.export.verify import Verification, logit_bound, verify_export
from sabiyarn_edge.model_folder.config import ModelConfig
from sabiyarn_edge.modeling import GPTJXForCausalLM
from tests.export.models import Exported, export_tiny


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_tiny(tmp_path_factory.mktemp("verify"), kv_cache_dtype="float32")


@pytest.fixture(scope="module")
def reference(exported: Exported) -> Reference:
    return make_reference(GPTJXForCausalLM.from_pretrained(exported.folder.parent / "checkpoint"), 64)


def verify(exported: Exported, reference: Reference) -> Verification:
    return verify_export(exported.folder, ModelConfig.load(exported.folder), reference)


@pytest.mark.parametrize(
    ("block_size", "expected"),
    [
        (32768, (96, 64)),
        (160, (96, 64)),
        (128, (64, 64)),
        (80, (16, 64)),
        (64, (16, 48)),
        (8, (2, 6)),
        (2, (1, 1)),
        (1, (1, 0)),
    ],
)
def test_prompt_and_continuation_fit_block_size(block_size: int, expected: tuple[int, int]) -> None:
    assert split_positions(block_size) == expected


def test_the_reference_is_greedy_and_uncached(exported: Exported, reference: Reference) -> None:
    """Against the float64 oracle."""
    prompt = reference.tokens[: reference.prompt_length].tolist()
    assert reference.tokens.tolist() == exported.oracle().greedy(prompt, 48)
    np.testing.assert_allclose(reference.logits, exported.oracle().logits(reference.tokens), atol=1e-4)


def test_differences_are_those_of_the_logits(exported: Exported, reference: Reference) -> None:
    """One logit of the reference moved: that much is reported, and where it was."""
    moved = reference.logits.copy()
    moved[3, 5] += 0.25
    moved[20, 7] -= 0.5
    result = verify(exported, replace(reference, logits=moved))
    assert result.largest_prefill_difference == pytest.approx(0.25, abs=1e-4)
    assert result.largest_decode_difference == pytest.approx(0.5, abs=1e-4)
    assert result.logit_spread == pytest.approx(moved.std(axis=-1).mean())
    with pytest.raises(ExportError, match=r"a logit differs by 0\.5"):
        result.check()


def test_agreement_does_not_cascade_but_the_greedy_run_ends(exported: Exported, reference: Reference) -> None:
    tokens, logits = reference.tokens.copy(), reference.logits.copy()
    place = reference.prompt_length + 9  # the tenth generated token becomes another one
    tokens[place] = (tokens[place] + 1) % exported.shape["vocab_size"]
    logits[place - 1, tokens[place]] = logits[place - 1].max() + 1
    result = verify(exported, replace(reference, tokens=tokens, logits=logits))
    assert result.greedy_run_agreement == 9
    later = exported.oracle().logits(tokens)[place:-1].argmax(axis=-1)
    unchanged = int((later == logits[place:-1].argmax(axis=-1)).sum())
    assert result.greedy_agreement == 9 + unchanged


def test_not_a_number_is_refused(exported: Exported, reference: Reference) -> None:
    result = verify(exported, reference)
    result.check()
    advice = r"differs by nan.*beyond 65504, .* --kv-cache-dtype float32 or int8"
    with pytest.raises(ExportError, match=advice):
        replace(result, largest_decode_difference=float("nan")).check()
    logits = reference.logits.copy()
    logits[30, 2] = np.nan
    with pytest.raises(ExportError, match="differs by nan"):
        verify(exported, replace(reference, logits=logits)).check()
    with pytest.raises(ExportError, match="differs by nan"):
        replace(result, largest_prefill_difference=float("nan")).check()


def test_a_graph_that_does_not_load(exported: Exported, reference: Reference, tmp_path: Path) -> None:
    (tmp_path / "decoder.onnx").write_bytes(b"no graph")
    with pytest.raises(ExportError, match="onnxruntime cannot run the exported graph"):
        verify_export(tmp_path, ModelConfig.load(exported.folder), reference)


def test_bounds_grow_with_the_rounding() -> None:
    bounds = [
        logit_bound("float32", "float32"),
        logit_bound("float32", "float16"),
        logit_bound("int8", "float16"),
    ]
    assert bounds == sorted(bounds)
    assert bounds[-2] < 0.1  # of the logits' spread: a wrong graph is off by more


def test_kl_divergence_and_top1(exported: Exported, reference: Reference) -> None:
    """Against a plain formula: logits of half the positions are halved, which flattens their softmax."""
    flattened = reference.logits.copy()
    flattened[::2] /= 2
    result = verify(exported, replace(reference, logits=flattened))

    def softmax(logits: np.ndarray) -> np.ndarray:
        powers = np.exp(logits.astype(np.float64))
        return powers / powers.sum(axis=-1, keepdims=True)

    p, q = softmax(flattened), softmax(reference.logits)
    assert result.mean_kl_divergence == pytest.approx((p * np.log(p / q)).sum(axis=-1).mean(), rel=1e-3)
    assert result.top1_agreement == 1
    negated = verify(exported, replace(reference, logits=-reference.logits))
    assert negated.top1_agreement == 0
