"""Which matrices get 4 bits and which 8, and shapes and rules that are refused."""

from __future__ import annotations

import pytest

from sabiyarn_edge.errors import ExportError, InvalidInputError
from sabiyarn_edge.export.block_plan import BlockPlan, matrix_names
from sabiyarn_edge.model_folder.config import GPTJXConfig
from tests.data.make_tiny_checkpoint import random_tensors

CONFIG = GPTJXConfig(block_size=64, vocab_size=97, n_layer=12, n_heads=2, n_embd=16)


def kept(*rules: str) -> set[str]:
    plan = BlockPlan("int4", 4, keep_int8=rules)
    plan.check(CONFIG)
    names = matrix_names(CONFIG)
    return {name for name in names if plan.layout(name, 16, CONFIG).bits == 8}


def block(i: int) -> set[str]:
    return {name for name in matrix_names(CONFIG) if name.startswith(f"transformer.h.{i}.")}


def test_every_matrix_of_a_checkpoint_has_a_layout() -> None:
    tensors = random_tensors(n_layer=12)
    assert set(matrix_names(CONFIG)) == {name for name, values in tensors.items() if values.ndim == 2}


def test_rules() -> None:
    assert kept() == set()
    assert kept("lm_head") == kept("wte") == {"transformer.wte.weight"}
    assert kept("first") == kept("h.0") == block(0)
    assert kept("last") == kept("h.11") == block(11)
    assert kept("h.1") == block(1)  # not h.10 and h.11
    assert kept("mlp.c_proj") == {f"transformer.h.{i}.mlp.c_proj.weight" for i in range(12)}
    assert kept("first", "last", "wpe") == block(0) | block(11) | {"transformer.wpe.weight"}


@pytest.mark.parametrize("rule", ["h.12", "", "head", "mlp.", "lm_head.weight"])
def test_a_rule_that_matches_nothing(rule: str) -> None:
    with pytest.raises(
        InvalidInputError,
        match=r"no matrix is called\. Give lm_head, first, last.* mlp\.c_proj, wpe, wte, h\.0 to h\.11",
    ):
        kept(rule)


ROUTED = GPTJXConfig(n_layer=2, n_heads=2, n_embd=32, use_moe=True, moe_dim=48, expert_per_layer={"0": 3})


@pytest.mark.parametrize("rule", ["mlp.fc_bank", "h.0.mlp.fc_bank", "fc_bank", "h.1", "last"])
def test_rules_for_banks_keep_all_experts_or_none(rule: str) -> None:
    plan = BlockPlan("int4", 4, keep_int8=(rule,))
    plan.check(ROUTED)
    kept = {name for name in matrix_names(ROUTED) if plan.layout(name, 32, ROUTED).bits == 8}
    assert kept
    for layer, experts in ((0, 3), (1, 4)):
        for bank in ("fc_bank", "proj_bank"):
            one = {f"transformer.h.{layer}.mlp.{bank}.{expert}" for expert in range(experts)}
            assert kept & one in (set(), one)


@pytest.mark.parametrize(
    ("rule", "bank"),
    [
        ("mlp.fc_bank.0", "mlp.fc_bank"),
        ("h.0.mlp.fc_bank.0", "h.0.mlp.fc_bank"),
        ("proj_bank.3", "proj_bank"),
        ("h.1.mlp.proj_bank.9", "h.1.mlp.proj_bank"),
    ],
)
def test_a_rule_for_one_expert_is_refused(rule: str, bank: str) -> None:
    with pytest.raises(
        InvalidInputError, match=rf"keep_int8 names '{rule}', .* Give {bank} for the whole bank\."
    ):
        BlockPlan("int4", 4, keep_int8=(rule,)).check(ROUTED)


@pytest.mark.parametrize("rule", ["h.2.mlp.fc_bank.0", "mlp.c_fc", "_bank.0", "mlp.gate"])
def test_a_rule_that_matches_nothing_of_a_mixture(rule: str) -> None:
    with pytest.raises(
        InvalidInputError, match=r"no matrix is called\. Give .* mlp\.fc_bank, mlp\.proj_bank, wpe"
    ):
        BlockPlan("int4", 4, keep_int8=(rule,)).check(ROUTED)


def test_the_block_follows_the_width() -> None:
    """Unless it was given, each matrix has the best that divides it: the MLP's output is four times as wide."""
    shape = GPTJXConfig(n_embd=48, n_heads=6)
    by_width = BlockPlan("int8", 8)
    by_width.check(shape)
    assert by_width.layout("transformer.h.0.mlp.c_fc.weight", 48, shape).size == 16
    assert by_width.layout("transformer.h.0.mlp.c_proj.weight", 192, shape).size == 64
    given = BlockPlan("int8", 8, block_size=16)
    given.check(shape)
    assert given.layout("transformer.h.0.mlp.c_proj.weight", 192, shape).size == 16


@pytest.mark.parametrize(
    ("width", "size", "message"),
    [
        (24, None, "n_embd is 24, but int8 needs a multiple of 16, its smallest block"),
        (24, 16, "n_embd is 24, but int8 needs a multiple of 16, its smallest block"),
        (
            48,
            32,
            r"n_embd is 48, which is not a multiple of the 32 weights of a block\. Give --block-size 16,",
        ),
        (768, 512, r"n_embd is 768, which is not a multiple of the 512.* Give --block-size 128,"),
    ],
)
def test_widths_that_are_no_multiple_of_the_block(width: int, size: int | None, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        BlockPlan("int8", 8, size).check(GPTJXConfig(n_embd=width, n_heads=1))
