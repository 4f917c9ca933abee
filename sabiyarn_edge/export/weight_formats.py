"""The ways of storing matrices that an export can choose from."""

from __future__ import annotations

from .float_weights import FloatWeights
from .quantized_weights import QuantizedWeights
from .weight_format import WeightFormat

__all__ = ["WEIGHT_FORMATS"]

_FORMATS: tuple[WeightFormat, ...] = (
    # Nothing is rounded; the bound is for float32 arithmetic in another order than torch's: errors of 2^-24
    # grow to about 1e-5 of the spread over twelve layers.
    FloatWeights("float32", "float32", logit_bound=1e-3),
    # Each weight is rounded to 11 bits: measured 2e-3 of the spread on random models; trained ones have
    # outliers.
    FloatWeights("float16-weights", "float16", logit_bound=0.03),
    # Weights and activations are rounded to 8 bits in every product: of all logits of a random model of
    # SabiYarn's shape the largest difference is 0.08 of the spread, and the root of the mean square 0.014.
    QuantizedWeights("int8", logit_bound=0.4),
)

WEIGHT_FORMATS: dict[str, WeightFormat] = {weight_format.name: weight_format for weight_format in _FORMATS}
"""The values that `dtype` of export_model takes."""
