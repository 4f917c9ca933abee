"""export_report.json: what was exported, how large it is, and how close to the original."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .accuracy import Accuracy, WeightError
from .activation_rounding import ActivationError
from .kept_matrices import KeptMatrix
from .portable_check import PortableVerification
from .verify import Verification

__all__ = ["REPORT_FILE", "ExportReport", "PortableReport"]

REPORT_FILE = "export_report.json"


@dataclass(frozen=True, kw_only=True)
class PortableReport:
    """The graph of standard operators in OUT/portable."""

    opset: int
    """Of the standard operators."""
    dtype: str
    """How its matrices are stored."""
    verification: PortableVerification | None
    """Beside the checkpoint in float32; None when it was not asked for."""


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What export_model did."""

    source: str
    """The checkpoint, as it was given."""
    out: str
    """The model folder."""
    created: str
    """Date and time, ISO 8601, UTC."""
    dtype: str
    """How weights are stored."""
    rounding: str | None
    """How int4 was rounded: "nearest", "search" or "gptq"."""
    kv_cache_dtype: str
    """How keys and values are stored."""
    calibration: str | None
    """The text that gptq, the choice of what stays in 8 bits and the scales of an int8 KV cache look at, a file or "the
    model's own text"; None if none does."""
    calibration_tokens: int
    """Of that text. At most 16,384 of them are run, from all over it."""
    block_size: int
    """Positions of the exported table."""
    source_block_size: int
    """Positions of the checkpoint's table: more than block_size if it was cut."""
    parameters: int
    """Numbers in the exported model, wte counted once."""
    nodes: int
    """Of decoder.onnx as written; onnxruntime merges and drops some."""
    kv_bytes_per_token: int
    """Memory that each token takes in the KV cache, bytes."""
    sizes_mib: dict[str, float]
    """File -> size, MiB, portable/ included; and "total"."""
    weights_hash: str
    """SHA-256 over the tensors."""
    weights: dict[str, WeightError]
    """Matrix -> how it is stored, and its distance from the checkpoint's."""
    kept_int8: Sequence[KeptMatrix] | None
    """Matrices of an int4 export that were chosen to have 8 bits, by falling accuracy per byte; None where nothing was
    to be chosen."""
    activations: dict[str, ActivationError]
    """Matrix in 8 or 4 bits -> what it costs that its inputs are rounded to 8 bits; empty when it was not measured."""
    accuracy: Accuracy | None
    """Of decoder.onnx beside the checkpoint in float32, on text; None when it was not measured."""
    verification: Verification | None
    """Of decoder.onnx beside the checkpoint with the weights as they are stored; None when it was not asked for."""
    portable: PortableReport | None
    """None when it was not asked for."""
    versions: dict[str, str]
    """Of Python and the packages that took part, and the machine."""
    seconds: dict[str, float]
    """Stage -> duration."""
    notes: list[str]
    """What the user should know: no tokenizer, no end token ..."""

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return dataclasses.asdict(self)

    def save(self, folder: Path) -> None:
        """Write folder/export_report.json."""
        text = json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n"
        (folder / REPORT_FILE).write_text(text, encoding="utf-8")
