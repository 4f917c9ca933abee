"""The ways of storing matrices that an export can choose from."""

from __future__ import annotations

from collections.abc import Sequence

from ..config import GPTJXConfig
from ..errors import InvalidInputError
from .block_plan import BlockPlan
from .block_quantization import BLOCK_SIZES
from .float_weights import FloatWeights
from .quantized_weights import QuantizedWeights
from .weight_format import WeightFormat

__all__ = ["DEFAULT_DTYPE", "DTYPES", "check_weight_options", "make_weight_format", "product_bound"]

DEFAULT_DTYPE = "int8"

_FLOATS = {"float32": "float32", "float16-weights": "float16"}
_BITS = {"int8": 8, "int4": 4}

DTYPES = (*_FLOATS, *_BITS)
"""The values that `dtype` of export_model takes."""

KEPT_IN_INT8 = ("lm_head", "wpe")
"""What int4 keeps in 8 bits unless told otherwise."""


def check_weight_options(dtype: str, block_size: int | None, keep_int8: Sequence[str] | None) -> None:
    """Raise InvalidInputError for options that suit no checkpoint."""
    if dtype not in DTYPES:
        raise InvalidInputError(f"dtype is {dtype!r}; it must be one of {', '.join(DTYPES)}.")
    if block_size is not None:
        if type(block_size) is not int or block_size not in BLOCK_SIZES:
            allowed = ", ".join(map(str, sorted(BLOCK_SIZES)))
            raise InvalidInputError(f"block size is {block_size!r}; it must be one of {allowed} weights.")
        if dtype not in _BITS:
            raise InvalidInputError(
                f"a block size ({block_size}) was given, but {dtype} has no blocks. Leave it out, or export as "
                "int8 or int4."
            )
    if keep_int8 is not None and dtype != "int4":
        raise InvalidInputError(
            f"keep_int8 ({', '.join(keep_int8)}) was given, but dtype is {dtype}: only int4 has matrices "
            "to keep in 8 bits."
        )


def make_weight_format(
    dtype: str, config: GPTJXConfig, block_size: int | None, keep_int8: Sequence[str] | None
) -> WeightFormat:
    """The format for a model of this shape, from options that check_weight_options() has allowed.

    Raises:
        InvalidInputError: a rule of keep_int8 matches no matrix.
        ExportError: the widths are no multiples of the block.
    """
    if dtype in _FLOATS:
        return FloatWeights(dtype, _FLOATS[dtype])
    rules = (KEPT_IN_INT8 if keep_int8 is None else tuple(keep_int8)) if dtype == "int4" else ()
    plan = BlockPlan(dtype, _BITS[dtype], block_size, rules)
    plan.check(config)
    return QuantizedWeights(plan, config)


def product_bound(dtype: str) -> float:
    """Largest logit difference that the arithmetic of the products may cause, as a fraction of the logits' spread.

    Against a model of the weights as they are stored; several times the largest difference that was measured.
    """
    # Floats: nothing is rounded but by float32 arithmetic in another order than torch's: 2e-6 on random models of
    # twelve layers, 5e-6 on a trained one of four. Blocks: activations are rounded to 8 bits in every product.
    return 1e-3 if dtype in _FLOATS else 0.5
