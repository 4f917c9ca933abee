"""The stages of an export that run the model over text: calibration before weights are written, evaluation after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..model_folder.config import GPTJXConfig, ModelConfig
from ..modeling.tensor_files import first_ten
from .accuracy import Accuracy, measure_accuracy
from .activation_rounding import ActivationError, measure_activation_errors
from .calibration import calibrate
from .kept_matrices import KeptMatrix, choose_kept, count_candidates
from .kv_scales import KvScales, calibration_pieces, measure_scales
from .progress import Progress
from .quantized_weights import QuantizedWeights
from .source_checkpoint import Checkpoint, OwnText
from .text_ids import evenly_spaced
from .weight_format import WeightFormat
from .weight_formats import WeightOptions

__all__ = ["Calibration", "Evaluation", "run_calibration", "run_evaluation"]

CALIBRATION_TOKENS = 16384
"""The most that GPTQ looks at: a minute for SabiYarn-125M on two cores. Of a mixture as many for each expert, if tokens
are spread evenly."""

TABLES = ("wte", "wpe")
"""Matrices outside the blocks."""

OUTLIER_TOKENS = 512
"""On which the rounding of activations is measured: outliers are the same few inputs nearly everywhere."""

OWN_TEXT = "the model's own text"
OWN_CALIBRATION = OwnText(rows=32, length=128, seed=1)
OWN_CALIBRATION_OF_EXPERTS = OwnText(rows=32, length=512, seed=1)
"""Of a mixture: each expert sees a part of it."""
OWN_EVALUATION = OwnText(rows=8, length=64, seed=2)


@dataclass(frozen=True)
class Calibration:
    """What was found in a text. Without arguments: of an export that needs none."""

    kv_scales: Sequence[KvScales] = ()
    """Of each layer; empty for a float cache."""
    text: str | None = None
    """The file, or how else the text came about."""
    tokens: int = 0
    too_few: dict[str, int] = field(default_factory=dict)
    """Matrices that were rounded to nearest, since they saw so few tokens."""
    kept: Sequence[KeptMatrix] | None = None
    """Matrices of an int4 export that were chosen to have 8 bits, the best first; None if nothing was to be chosen."""

    def notes(self, weight_options: WeightOptions, config: GPTJXConfig) -> list[str]:
        """What the user should know of the text."""
        widest = max(
            config.mlp_width, config.n_embd
        )  # inputs of mlp.c_proj: fewer tokens cannot tell how they go together
        found = []
        if weight_options.calibrated and self.text not in (None, OWN_TEXT) and self.tokens < widest:
            found.append(
                f"{self.text} has {self.tokens} tokens, too few for gptq: give some thousands (at least {widest}), or "
                "leave --calibration out for a text that the model writes."
            )
        if self.too_few:
            listed = ", ".join(first_ten([f"{name} ({tokens})" for name, tokens in self.too_few.items()]))
            found.append(
                f"too few tokens of {self.text} were routed to some experts for gptq, so {len(self.too_few)} of their "
                f"matrices were rounded to nearest: {listed}. Give --calibration a longer text."
            )
        return found


def run_calibration(
    checkpoint: Checkpoint,
    weights: WeightFormat,
    options: WeightOptions,
    path: Path | None,
    text: str | None,
    *,
    kv_cache: bool,
    stages: Progress,
) -> Calibration:
    """Run the torch model over `text`, which came from `path`, or over the model's own.

    Args:
        weights: is told what to keep in 8 bits, and gets the blocks' matrices, rounded by GPTQ, if `options` say so.
        kv_cache: whether scales of an int8 cache are wanted.
    """
    config = checkpoint.config
    own = OWN_CALIBRATION_OF_EXPERTS if config.use_moe else OWN_CALIBRATION
    too_few: dict[str, int] = {}
    with stages.stage("reading text" if text else "writing text", own.rows * own.length, "token") as advance:
        texts = checkpoint.texts(text, own, advance)
    matrices = checkpoint.matrices()
    kept = None
    if options.chooses_kept:
        assert isinstance(weights, QuantizedWeights)
        with stages.stage("measuring matrices", count_candidates(matrices), "matrix") as advance:
            kept = choose_kept(
                checkpoint.model, matrices, checkpoint.views(), weights, texts, progress=advance
            )
        weights.keep_in_int8([matrix.name for matrix in kept])
    if options.calibrated:
        assert isinstance(weights, QuantizedWeights)
        most = max(config.experts_of(layer) for layer in range(config.n_layer))
        for_each = max(most // config.num_experts_per_tok, 1) if config.use_moe else 1
        rows = evenly_spaced(texts, CALIBRATION_TOKENS * for_each)
        with stages.stage("rounding weights", len(matrices) - len(TABLES), "matrix") as advance:
            too_few = calibrate(
                checkpoint.model, matrices, checkpoint.views(), weights, rows, progress=advance
            )
    tokens = [int(token) for piece in texts for token in piece.flatten()]
    scales = _kv_scales(checkpoint, tokens, stages) if kv_cache else ()
    return Calibration(scales, str(path) if path else OWN_TEXT, len(tokens), too_few, kept)


def _kv_scales(checkpoint: Checkpoint, tokens: Sequence[int], stages: Progress) -> Sequence[KvScales]:
    pieces = calibration_pieces(tokens, checkpoint.config.block_size)
    with stages.stage("calibrating KV cache", sum(len(piece) for _, piece in pieces), "token") as advance:
        return measure_scales(checkpoint.model, pieces, advance)


@dataclass(frozen=True)
class Evaluation:
    """What was measured on a text."""

    accuracy: Accuracy
    activations: dict[str, ActivationError]


def run_evaluation(
    checkpoint: Checkpoint,
    folder: Path,
    config: ModelConfig,
    weights: WeightFormat,
    path: Path | None,
    text: str | None,
    stages: Progress,
) -> Evaluation:
    """Compare decoder.onnx with the checkpoint in float32 on `text`, which came from `path`, or on the model's own."""
    own = OWN_EVALUATION
    texts = [row[None] for piece in checkpoint.texts(text, own) for row in piece]
    length = texts[0].shape[1]  # what stands before a token makes it likelier: perplexity depends on this
    source = (
        f"{own.rows} pieces of {length} tokens that the model wrote"
        if path is None
        else f"{path}, in pieces of {length} tokens"
    )
    model = checkpoint.model
    with stages.stage("measuring accuracy", sum(piece.shape[1] for piece in texts), "token") as advance:
        accuracy = measure_accuracy(model, folder, config, texts, source, progress=advance)
    activations: dict[str, ActivationError] = {}
    if isinstance(weights, QuantizedWeights):
        with stages.stage("looking for outliers", 1) as advance:
            some = evenly_spaced(texts, OUTLIER_TOKENS)
            activations = measure_activation_errors(
                model, checkpoint.matrices(), checkpoint.views(), weights, some
            )
            advance(1)
    return Evaluation(accuracy, activations)
