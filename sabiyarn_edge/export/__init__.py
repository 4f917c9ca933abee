"""From a torch checkpoint to a model folder that runs on devices.

Needs torch and onnx: the extra `export`. The device never imports this package.
"""

from __future__ import annotations

from .accuracy import Accuracy, WeightError
from .exporter import export_model
from .kept_matrices import KeptMatrix
from .portable_check import PortableVerification
from .report import ExportReport, PortableReport
from .verify import Verification

__all__ = [
    "Accuracy",
    "ExportReport",
    "KeptMatrix",
    "PortableReport",
    "PortableVerification",
    "Verification",
    "WeightError",
    "export_model",
]
