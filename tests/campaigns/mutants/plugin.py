"""A pytest plugin: the package comes from the folder at hand, with the modules that were compiled for it."""

from __future__ import annotations

import sys

# An editable install finds its own checkout before everything else.
sys.meta_path[:] = [finder for finder in sys.meta_path if "_editable_" not in type(finder).__module__]

import tests.sanitized_modules  # noqa: E402, F401 - puts the compiled modules in their place
