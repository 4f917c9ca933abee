"""Run SabiYarn and other GPTJX language models on small devices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import telemetry as _telemetry

if TYPE_CHECKING:
    from .errors import SabiYarnError
    from .generation_config import GenerationConfig, OptionWarning
    from .generator import EdgeGenerator, TokenStream
    from .mask_patterns import document_mask, prefix_mask, sliding_window_mask
    from .memory_plan import MemoryFitWarning, MemoryPlan
    from .result import GenerationResult, Timings
    from .scoring import Score
    from .streaming import StreamedToken
    from .text_session import Session
    from .weight_cache import WeightCacheWarning

_telemetry.turn_off()  # works only before onnxruntime is first imported

__version__ = "0.1.0"

__all__ = [
    "EdgeGenerator",
    "GenerationConfig",
    "GenerationResult",
    "MemoryFitWarning",
    "MemoryPlan",
    "OptionWarning",
    "SabiYarnError",
    "Score",
    "Session",
    "StreamedToken",
    "Timings",
    "TokenStream",
    "WeightCacheWarning",
    "__version__",
    "document_mask",
    "prefix_mask",
    "sliding_window_mask",
]

# Loaded when first asked for: `import sabiyarn_edge` stays fast, and torch users need no onnxruntime.
_HOMES = {
    "EdgeGenerator": "generator",
    "GenerationConfig": "generation_config",
    "GenerationResult": "result",
    "MemoryFitWarning": "memory_plan",
    "MemoryPlan": "memory_plan",
    "OptionWarning": "generation_config",
    "SabiYarnError": "errors",
    "Score": "scoring",
    "Session": "text_session",
    "StreamedToken": "streaming",
    "Timings": "result",
    "TokenStream": "generator",
    "WeightCacheWarning": "weight_cache",
    "document_mask": "mask_patterns",
    "prefix_mask": "mask_patterns",
    "sliding_window_mask": "mask_patterns",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
