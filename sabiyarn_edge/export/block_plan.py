"""Which matrices are stored in how many bits, in blocks of how many weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ExportError, InvalidInputError, shown
from ..model_folder.config import GPTJXConfig
from .block_quantization import BLOCK_SIZES, BlockLayout, block_size_for

__all__ = ["BlockPlan", "matrix_names", "stored_name"]

TABLE = "wte"
"""The embedding, which is lm_head too."""


@dataclass(frozen=True)
class BlockPlan:
    """The rule by which each matrix of a model gets its layout."""

    name: str
    """The dtype that was asked for."""
    bits: int
    """Of every matrix that no rule keeps in 8 bits."""
    block_size: int | None = None
    """Weights per block; None: 128, or less where 128 does not divide a matrix' width."""
    keep_int8: tuple[str, ...] = ()
    """Rules for matrices in 8 bits: "lm_head" (the embedding, which is the same table), "first", "last" (blocks),
    or a part of names between dots, such as "h.3", "mlp.c_proj" or "wpe"."""

    def check(self, config: GPTJXConfig) -> None:
        """Raise if a width is no multiple of the block, or a rule matches nothing that is stored.

        Raises:
            InvalidInputError: a rule matches nothing.
            ExportError: a width does not suit.
        """
        names = matrix_names(config)
        for rule in self.keep_int8:
            if not any(_matches(rule, stored_name(name), config) for name in names):
                bank = f"{rule.partition('_bank.')[0]}_bank"
                if any(_matches(bank, stored_name(name), config) for name in names):
                    raise InvalidInputError(
                        f"keep_int8 names {shown(rule)}, but the experts of a layer are stored as one bank, whose "
                        f"weights all have the same number of bits. Give {bank} for the whole bank."
                    )
                raise InvalidInputError(
                    f"keep_int8 names {shown(rule)}, which no matrix is called. Give lm_head, first, last, or a part "
                    f"of a name: {', '.join(sorted({_kind(name) for name in names}))}, h.0 to h.{config.n_layer - 1}."
                )
        widths = {"n_embd": config.n_embd}  # every other width of a dense model is a multiple of it
        if config.use_moe:
            widths["moe_dim"] = config.mlp_width
        for name, width in widths.items():
            usual = block_size_for(width)
            if usual is None:
                raise ExportError(
                    f"{name} is {width}, but {self.name} needs a multiple of {BLOCK_SIZES[-1]}, its smallest block of "
                    "weights. Export with --dtype keep, float32, float16 or bfloat16."
                )
            if self.block_size is not None and width % self.block_size:
                raise ExportError(
                    f"{name} is {width}, which is not a multiple of the {self.block_size} weights of a block. Give "
                    f"--block-size {usual}, or leave it out."
                )

    def layout(self, name: str, width: int, config: GPTJXConfig) -> BlockLayout:
        """Of the matrix called `name`, whose rows have `width` weights."""
        size = self.block_size or block_size_for(width)
        assert size is not None  # check() has seen to it
        kept = any(_matches(rule, stored_name(name), config) for rule in self.keep_int8)
        return BlockLayout(8 if kept else self.bits, size)


def matrix_names(config: GPTJXConfig) -> list[str]:
    """Every matrix of the model."""
    blocks = []
    for i in range(config.n_layer):
        experts = range(config.experts_of(i))
        mlp = [f"{bank}_bank.{expert}" for bank in ("fc", "proj") for expert in experts]
        dense = [] if mlp else ["c_fc.weight", "c_proj.weight"]
        parts = ["attn.c_attn.weight", "attn.c_proj.weight", *(f"mlp.{name}" for name in (*mlp, *dense))]
        blocks += [f"transformer.h.{i}.{part}" for part in parts]
    return ["transformer.wte.weight", "transformer.wpe.weight", *blocks]


def stored_name(matrix: str) -> str:
    """The tensor that a matrix is stored in: the whole bank of an expert's matrix, or its own."""
    bank = matrix.rpartition(".")[0]
    return bank if bank.endswith("_bank") else matrix


def _matches(rule: str, name: str, config: GPTJXConfig) -> bool:
    meant = {"lm_head": TABLE, "first": "h.0", "last": f"h.{config.n_layer - 1}"}.get(rule, rule)
    return bool(rule) and f".{meant}." in f".{name}."


def _kind(name: str) -> str:
    """The part of a name that says what the matrix does: mlp.c_fc, wte."""
    parts: Sequence[str] = name.split(".")[1:-1]
    return ".".join(parts[2:] or parts)
