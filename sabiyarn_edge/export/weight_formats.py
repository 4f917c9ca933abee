"""The ways of storing matrices that an export can choose from."""

from __future__ import annotations

from .float_weights import FloatWeights
from .quantized_weights import QuantizedWeights
from .weight_format import WeightFormat

__all__ = ["WEIGHT_FORMATS"]

# logit_bound: several times the largest difference that was measured, as a fraction of the logits' spread.
_FORMATS: tuple[WeightFormat, ...] = (
    # Nothing is rounded but by float32 arithmetic in another order than torch's: 2e-6 on random models of
    # twelve layers, 5e-6 on a trained one of four.
    FloatWeights("float32", "float32", logit_bound=1e-3),
    # Each weight is rounded to 11 bits: 2e-3 on random models, 5e-3 on a trained one.
    FloatWeights("float16-weights", "float16", logit_bound=0.03),
    # Weights and activations are rounded to 8 bits in every product: 0.08 on a random model of SabiYarn's
    # shape (the root of the mean square is 0.014), 0.15 on a trained one that is 128 wide.
    QuantizedWeights("int8", logit_bound=0.5),
)

WEIGHT_FORMATS: dict[str, WeightFormat] = {weight_format.name: weight_format for weight_format in _FORMATS}
"""The values that `dtype` of export_model takes."""
