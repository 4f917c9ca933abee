"""Run SabiYarn and other GPTJX language models on small devices."""

from __future__ import annotations

from .system import telemetry as _telemetry

TYPE_CHECKING = False  # true for type checkers; `typing` would take most of the import's time
if TYPE_CHECKING:
    from typing import Any

    from .calls.mask_patterns import document_mask, prefix_mask, sliding_window_mask
    from .calls.result import GenerationResult, Timings
    from .calls.scoring import Score
    from .calls.stream import TokenStream
    from .chat.calls import InvalidCall, ToolCall
    from .chat.result import ChatResult
    from .chat.session import ChatSession
    from .chat.stream import ChatStream
    from .errors import SabiYarnError
    from .generator import EdgeGenerator
    from .options.generation_config import GenerationConfig, OptionWarning
    from .planning.memory_plan import MemoryFitWarning, MemoryPlan
    from .tasks.answers import Classification, Entity
    from .tasks.runner import CutAnswerWarning
    from .text.streaming import StreamedToken
    from .text_session import Session

_telemetry.turn_off()  # works only before onnxruntime is first imported

__version__ = "0.1.0"

__all__ = [
    "ChatResult",
    "ChatSession",
    "ChatStream",
    "Classification",
    "CutAnswerWarning",
    "EdgeGenerator",
    "Entity",
    "GenerationConfig",
    "GenerationResult",
    "InvalidCall",
    "MemoryFitWarning",
    "MemoryPlan",
    "OptionWarning",
    "SabiYarnError",
    "Score",
    "Session",
    "StreamedToken",
    "Timings",
    "TokenStream",
    "ToolCall",
    "__version__",
    "document_mask",
    "prefix_mask",
    "sliding_window_mask",
]

# Loaded when first asked for: `import sabiyarn_edge` stays fast, and torch users need no onnxruntime.
_HOMES = {
    "ChatResult": "chat.result",
    "ChatSession": "chat.session",
    "ChatStream": "chat.stream",
    "Classification": "tasks.answers",
    "CutAnswerWarning": "tasks.runner",
    "EdgeGenerator": "generator",
    "Entity": "tasks.answers",
    "GenerationConfig": "options.generation_config",
    "GenerationResult": "calls.result",
    "InvalidCall": "chat.calls",
    "MemoryFitWarning": "planning.memory_plan",
    "MemoryPlan": "planning.memory_plan",
    "OptionWarning": "options.generation_config",
    "SabiYarnError": "errors",
    "Score": "calls.scoring",
    "Session": "text_session",
    "StreamedToken": "text.streaming",
    "Timings": "calls.result",
    "TokenStream": "calls.stream",
    "ToolCall": "chat.calls",
    "document_mask": "calls.mask_patterns",
    "prefix_mask": "calls.mask_patterns",
    "sliding_window_mask": "calls.mask_patterns",
}

_NOT_COMPILED = (
    f"{__path__[0]} has no compiled module _core for this Python: it is the source, which hides an installed package. "
    "Run `pip install -e .` in the checkout, or start Python in another folder."
)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    try:
        home = import_module(f".{_HOMES[name]}", __name__)
    except ModuleNotFoundError as error:
        if error.name != f"{__name__}._core":
            raise
        raise ImportError(_NOT_COMPILED) from error
    value = getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
