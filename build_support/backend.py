"""The build backend: scikit-build-core, behind a check that pip runs before it looks for onnxruntime.

Without the check, pip on a 32-bit system says "No matching distribution found for onnxruntime", and not why.
CMakeLists.txt refuses too: a 64-bit Python can be asked to build with a 32-bit compiler.
"""

from __future__ import annotations

import sys

from scikit_build_core.build import *  # noqa: F403  (the hooks that it has, whichever these are)

if sys.maxsize < 2**32:
    raise SystemExit(
        "sabiyarn_edge needs a 64-bit system, and this Python is a 32-bit program: onnxruntime, which computes "
        "the model, has no packages for 32-bit systems. On a Raspberry Pi 3 or later, install the 64-bit "
        "Raspberry Pi OS; `getconf LONG_BIT` then says 64."
    )
