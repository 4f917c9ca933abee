"""The measure of quality: models on a task with references, and exports of one checkpoint beside each other."""

from __future__ import annotations

from .compare import compare_exports
from .evaluate import evaluate_models

__all__ = ["compare_exports", "evaluate_models"]
