"""The arguments with which a model is loaded: the check of each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import checks as check
from .overflow import OVERFLOW_MODES

__all__ = ["check_loading"]

_CHECKS: dict[str, check.Check] = {
    "path": check.path,
    "num_threads": check.optional(check.integer(at_least=1, hint="Leave it out to take all CPUs.")),
    "max_length": check.optional(check.integer(at_least=2)),
    "max_batch_size": check.optional(check.integer(at_least=1)),
    "kv_window": check.optional(check.integer(at_least=2)),
    "num_sink_tokens": check.integer(),
    "low_power": check.flag,
    "overflow": check.choice(*OVERFLOW_MODES),
    "keep_tokens": check.integer(),
    "reuse_prefix": check.flag,
    "prefix_cache_mb": check.integer(),
    "memory_limit_mb": check.optional(check.memory_mib),
    "fit": check.flag,
    "resident": check.flag,
}


def check_loading(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of EdgeGenerator.from_pretrained in their normal form.

    Raises:
        InvalidInputError: one of them has the wrong type or is out of range, whatever the model.
    """
    return {name: _CHECKS[name](name, value) for name, value in arguments.items()}
