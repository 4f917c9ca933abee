"""Run SabiYarn and other GPTJX language models on small devices."""

from __future__ import annotations

import os

# onnxruntime's Linux wheels send telemetry unless told otherwise before they are first imported. A user's own
# setting wins.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
