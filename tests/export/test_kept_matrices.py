"""What stays in 8 bits: each win measured by a plain forward of the model, and the choice against all that fit."""

from __future__ import annotations

from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from sabiyarn_edge.export.block_plan import BlockPlan
from sabiyarn_edge.export.block_quantization import BlockLayout, round_to_nearest
from sabiyarn_edge.export.kept_matrices import KeptMatrix, _best, choose_kept, count_candidates, most_bytes
from sabiyarn_edge.export.quantized_weights import QuantizedWeights
from sabiyarn_edge.export.scale_search import round_to_searched
from sabiyarn_edge.export.source_checkpoint import Checkpoint
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint
from tests.export.models import export_tiny

SHAPE = {"n_embd": 32, "n_heads": 2, "n_layer": 3, "vocab_size": 97, "block_size": 40}
TEXTS = [torch.randint(97, (3, 40), generator=torch.Generator().manual_seed(0))]


def test_wins_are_those_of_plain_forwards(tmp_path: Path) -> None:
    """And the model is as it was before."""
    checkpoint = Checkpoint.load(make_tiny_checkpoint(tmp_path / "checkpoint", **SHAPE), None)
    matrices = checkpoint.matrices()
    weights = QuantizedWeights(BlockPlan("int4", 4), checkpoint.config, "search")
    before = {name: values.clone() for name, values in checkpoint.model.state_dict().items()}
    steps: list[int] = []
    kept = choose_kept(checkpoint.model, matrices, checkpoint.views(), weights, TEXTS, progress=steps.append)
    for name, values in checkpoint.model.state_dict().items():
        assert torch.equal(values, before[name]), name
    assert steps == [1] * count_candidates(matrices) == [1] * (2 + 4 * 3)
    assert sum(matrix.extra_bytes for matrix in kept) > 0

    copy = Checkpoint.load(tmp_path / "checkpoint", None).model
    with torch.inference_mode():
        log_p = copy(TEXTS[0]).logits.double().log_softmax(dim=-1)

        def divergence() -> float:
            log_q = copy(TEXTS[0]).logits.double().log_softmax(dim=-1)
            return float((log_p.exp() * (log_p - log_q)).sum(dim=-1).mean())

        rounded = {
            bits: {
                matrix.name: torch.from_numpy(
                    method(matrix.load(), BlockLayout(bits, layout_size)).restored()
                )
                for matrix in matrices
                for layout_size in [weights.layout(matrix).size]
            }
            for bits, method in ((4, round_to_searched), (8, round_to_nearest))
        }
        state = copy.state_dict()
        for name, values in rounded[4].items():
            state[name].copy_(values)
        all_in_four = divergence()
        for found in kept:
            state[found.name].copy_(rounded[8][found.name])
            # float32 sums of the products, against float64 behind them
            assert found.kl_won == pytest.approx(all_in_four - divergence(), rel=1e-2, abs=1e-6)
            state[found.name].copy_(rounded[4][found.name])


def test_the_choice_is_nearly_the_best_of_all_that_fit() -> None:
    """At most the smallest win per byte that was left out, times the room that was left, is lost; here a tenth."""
    rng = np.random.default_rng(1)
    for _ in range(20):
        candidates = [
            KeptMatrix(
                name=str(i), kl_won=float(rng.uniform(-0.1, 1)), extra_bytes=int(rng.choice([5, 15, 20, 80]))
            )
            for i in range(10)
        ]
        room = int(rng.integers(60, 160))
        chosen = _best(candidates, room)
        assert sum(found.extra_bytes for found in chosen) <= room
        assert all(found.kl_won > 0 for found in chosen)
        per_byte = [found.kl_won / found.extra_bytes for found in chosen]
        assert per_byte == sorted(per_byte, reverse=True)
        every = chain.from_iterable(combinations(candidates, count) for count in range(11))
        best = max(
            sum(found.kl_won for found in some)
            for some in every
            if sum(found.extra_bytes for found in some) <= room
        )
        assert sum(found.kl_won for found in chosen) >= 0.9 * best


@pytest.mark.parametrize(
    "shape", [SHAPE, {"use_moe": True, "n_embd": 32, "moe_dim": 48}], ids=["dense", "routed"]
)
def test_an_export_says_what_it_keeps_and_stays_in_its_room(tmp_path: Path, shape: dict[str, object]) -> None:
    exported = export_tiny(tmp_path, dict(shape), dtype="int4", rounding="search", verify=False)
    kept = exported.report.kept_int8
    assert kept is not None
    names = {matrix.name for matrix in kept}
    assert names
    for name, error in exported.report.weights.items():
        bank = name.rpartition(".")[0]
        assert error.storage == ("int8" if {name, bank} & names else "int4")
    checkpoint = Checkpoint.load(tmp_path / "checkpoint", None)
    room = most_bytes(checkpoint.matrices()) - sum(
        rows * width * (0.5 + 1 / 16) + 4 * rows for rows, width in (m.shape for m in checkpoint.matrices())
    )
    assert sum(matrix.extra_bytes for matrix in kept) <= room * 1.1  # tiles are filled up
    assert (
        export_tiny(
            tmp_path / "given", dict(shape), dtype="int4", keep_int8=["first"], verify=False
        ).report.kept_int8
        is None
    )
