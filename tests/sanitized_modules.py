"""A pytest plugin that puts compiled modules from another folder in the place of the installed ones.

    SABIYARN_EDGE_MODULES=folder pytest -p tests.sanitized_modules ...

test_native.py runs tests on modules that it builds with sanitizers in this way.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

NAMES = ("_core", "_core_testing", "engine._decode")  # the others use the first

for name in NAMES:
    (file,) = Path(os.environ["SABIYARN_EDGE_MODULES"]).glob(f"{name.split('.')[-1]}.*.so")
    spec = importlib.util.spec_from_file_location(f"sabiyarn_edge.{name}", file)
    assert spec is not None and spec.loader is not None, file
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
for name in NAMES:  # as an import would
    package, _, last = f"sabiyarn_edge.{name}".rpartition(".")
    setattr(importlib.import_module(package), last, sys.modules[f"sabiyarn_edge.{name}"])
