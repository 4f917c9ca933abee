"""The ways of storing matrices that an export can choose from."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import InvalidInputError, shown
from ..model_folder.config import GPTJXConfig
from .block_plan import BlockPlan
from .block_quantization import BLOCK_SIZES
from .float_weights import FLOAT_DTYPES, FloatWeights
from .quantized_weights import QuantizedWeights
from .weight_format import WeightFormat

__all__ = [
    "DEFAULT_DTYPE",
    "DTYPES",
    "KEEP",
    "ROUNDINGS",
    "WeightOptions",
    "check_weight_options",
    "make_weight_format",
    "product_bound",
]

DEFAULT_DTYPE = "int8"

KEEP = "keep"
"""The `dtype` that means the checkpoint's own."""

_BITS = {"int8": 8, "int4": 4}

DTYPES = (*FLOAT_DTYPES, *_BITS, KEEP)
"""The values that `dtype` of export_model takes."""

ROUNDINGS = ("nearest", "search", "gptq")
"""Of int4, by rising quality and time."""


@dataclass(frozen=True, kw_only=True)
class WeightOptions:
    """How the matrices of an export are stored; see export_model for what each value means."""

    dtype: str = DEFAULT_DTYPE
    block_size: int | None = None
    keep_int8: tuple[str, ...] | None = None
    rounding: str | None = None

    @property
    def calibrated(self) -> bool:
        """Whether rounding looks at what the products' inputs are like."""
        return self.dtype == "int4" and self.rounding in (None, "gptq")

    @property
    def chooses_kept(self) -> bool:
        """Whether it is measured which matrices have 8 bits."""
        return self.dtype == "int4" and self.keep_int8 is None


def check_weight_options(options: WeightOptions) -> None:
    """Raise InvalidInputError for options that suit no checkpoint."""
    dtype, block_size, keep_int8 = options.dtype, options.block_size, options.keep_int8
    if dtype not in DTYPES:
        raise InvalidInputError(f"dtype is {shown(dtype)}; it must be one of {', '.join(DTYPES)}.")
    if block_size is not None:
        if type(block_size) is not int or block_size not in BLOCK_SIZES:
            allowed = ", ".join(map(str, sorted(BLOCK_SIZES)))
            raise InvalidInputError(
                f"block size is {shown(block_size)}; it must be one of {allowed} weights."
            )
        if dtype not in _BITS:
            floats = "a checkpoint's own type" if dtype == KEEP else dtype
            raise InvalidInputError(
                f"a block size ({block_size}) was given, but {floats} has no blocks. Leave it out, or export as "
                "int8 or int4."
            )
    if keep_int8 is not None and dtype != "int4":
        raise InvalidInputError(
            f"keep_int8 ({', '.join(keep_int8)}) was given, but dtype is {dtype}: only int4 has matrices "
            "to keep in 8 bits."
        )
    if options.rounding is not None:
        if options.rounding not in ROUNDINGS:
            raise InvalidInputError(
                f"rounding is {shown(options.rounding)}; it must be one of {', '.join(ROUNDINGS)}."
            )
        if dtype != "int4":
            raise InvalidInputError(
                f"rounding ({options.rounding}) was given, but dtype is {dtype}: only for int4 it makes a difference. "
                "Leave it out."
            )


def make_weight_format(options: WeightOptions, config: GPTJXConfig) -> WeightFormat:
    """The format for a model of this shape, from options that check_weight_options() has allowed.

    Args:
        options: with another dtype than "keep". Where they leave open what an int4 export keeps in 8 bits, nothing is.

    Raises:
        InvalidInputError: a rule of keep_int8 matches no matrix.
        ExportError: the widths are no multiples of the block.
    """
    dtype = options.dtype
    if dtype in FLOAT_DTYPES:
        return FloatWeights(dtype)
    plan = BlockPlan(dtype, _BITS[dtype], options.block_size, options.keep_int8 or ())
    plan.check(config)
    return QuantizedWeights(plan, config, "nearest" if options.rounding == "nearest" else "search")


def product_bound(dtype: str) -> float:
    """Largest logit difference that the arithmetic of the products may cause, as a fraction of the logits' spread.

    Against a model of the weights as they are stored; several times the largest difference that was measured.
    """
    # Floats: nothing is rounded but by float32 arithmetic in another order than torch's: 2e-6 on random models of
    # twelve layers, 5e-6 on a trained one of four. Blocks: activations are rounded to 8 bits in every product.
    return 1e-3 if dtype in FLOAT_DTYPES else 0.5
