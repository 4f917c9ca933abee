"""How the hidden states of a text's tokens become one vector. Imports nothing: the command line names the choices."""

from __future__ import annotations

from typing import Literal

__all__ = ["POOLINGS", "Pooling"]

Pooling = Literal["mean", "last"]
POOLINGS: tuple[Pooling, ...] = ("mean", "last")
