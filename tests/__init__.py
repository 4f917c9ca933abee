"""Tests, mirroring the source."""

import os

# Before any test file imports onnxruntime: tests report to nobody.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
