"""The options that say which model a command loads, and how: one definition for all commands."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

from .parser import Parser
from .terminal import PROGRAM

if TYPE_CHECKING:
    from ..generator import EdgeGenerator

__all__ = [
    "DEFAULT_MODEL",
    "LOADING_OPTIONS",
    "OVERFLOW",
    "add_loading_options",
    "add_model_option",
    "load",
    "loading_arguments",
]

DEFAULT_MODEL = "nano"

OVERFLOW = {
    "error": "refuses (default)",
    "slide": "forgets the oldest half and goes on",
    "truncate_prompt": "cuts the prompt",
}
"""What each choice of --overflow does when the positions are not enough."""

LOADING_OPTIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "num_threads": (
        "--threads",
        {"type": int, "metavar": "N", "help": "threads (default: all CPUs at hand)"},
    ),
    "low_power": (
        "--low-power",
        {"action": "store_true", "help": "threads sleep while they wait: less energy, slower"},
    ),
    "resident": (
        "--resident",
        {
            "action": "store_true",
            "help": "copy the weights into private memory instead of mapping them: faster tokens for more memory",
        },
    ),
    "kv_window": (
        "--kv-window",
        {"type": int, "metavar": "N", "help": "attend to N tokens only, the newest: this bounds memory"},
    ),
    "num_sink_tokens": (
        "--num-sink-tokens",
        {"type": int, "metavar": "N", "default": 0, "help": "of these the first N of the text (default 0)"},
    ),
    "memory_limit_mb": (
        "--memory-limit",
        {
            "type": float,
            "metavar": "MIB",
            "help": f"refuse to load what takes more (see `{PROGRAM} plan`)",
        },
    ),
    "fit": (
        "--fit",
        {
            "action": "store_true",
            "help": "with --memory-limit: take a smaller prefill chunk and window instead of refusing",
        },
    ),
    "overflow": ("--overflow", {"default": "error"}),  # choices and help differ: see add_loading_options()
    "keep_tokens": (
        "--keep-tokens",
        {
            "type": int,
            "metavar": "N",
            "default": 0,
            "help": "first tokens that --overflow never drops (default 0)",
        },
    ),
}
"""Argument of `EdgeGenerator.from_pretrained` -> the flag that gives it, and how argparse reads it."""


def add_model_option(parser: argparse._ActionsContainer) -> None:
    """Add --model."""
    parser.add_argument(
        "--model", default=DEFAULT_MODEL, metavar="MODEL", help="model folder, or nano (default)"
    )


def add_loading_options(
    parser: Parser,
    names: Collection[str] = LOADING_OPTIONS,
    *,
    overflow: Collection[str] = OVERFLOW,
    title: str = "loading",
    add: Callable[..., object] = argparse._ArgumentGroup.add_argument,
) -> argparse._ArgumentGroup:
    """Add the options that say how a model is loaded.

    Args:
        names: the keys of LOADING_OPTIONS that the command has.
        overflow: the choices of --overflow; none: there is neither --overflow nor --keep-tokens.
        title: of the options' group.
        add: adds one option, from the group, its flag and argparse's keywords.

    Returns:
        The group.
    """
    group = parser.add_argument_group(title)
    for name in names:
        flag, keywords = LOADING_OPTIONS[name]
        if not overflow and name in ("overflow", "keep_tokens"):
            continue
        if name == "overflow":
            does = ", ".join(f"{mode} {OVERFLOW[mode]}" for mode in overflow)
            help = f"when the positions are not enough: {does}"
            keywords = {**keywords, "choices": tuple(overflow), "help": help}
        add(group, flag, dest=name, **keywords)
    return group


def loading_arguments(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `EdgeGenerator.from_pretrained` that the command's options give, without the model."""
    return {name: value for name, value in vars(arguments).items() if name in LOADING_OPTIONS}


def load(arguments: argparse.Namespace) -> EdgeGenerator:
    """Load the model as these options say."""
    from ..generator import EdgeGenerator

    return EdgeGenerator.from_pretrained(arguments.model, **loading_arguments(arguments))
