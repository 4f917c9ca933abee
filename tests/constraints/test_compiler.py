"""What was compiled lately is kept, and found while another constraint compiles."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from sabiyarn_edge.constraints import compiler
from sabiyarn_edge.constraints.compiler import ConstraintCompiler
from sabiyarn_edge.options.generation_config import GenerationConfig
from tests.constraints.vocabularies import EVERY_BYTE, byte_level

SECONDS = 60.0
"""Longer than anything here takes; a lock that is never released ends the test."""


def choices(text: str) -> GenerationConfig:
    return GenerationConfig(choices=[text])


@pytest.fixture
def constraints() -> ConstraintCompiler:
    return ConstraintCompiler(byte_level(EVERY_BYTE), 257)


def test_the_least_recently_used_is_dropped(constraints: ConstraintCompiler) -> None:
    first, second = (constraints.constraint_of(choices(text)) for text in "ab")
    for number in range(compiler._KEPT - 1):
        assert constraints.constraint_of(choices("a")) is first
        constraints.constraint_of(choices(str(number)))
    assert constraints.is_kept(choices("a")) and not constraints.is_kept(choices("b"))
    assert constraints.constraint_of(choices("b")) is not second
    assert constraints.is_kept(GenerationConfig()) and constraints.constraint_of(GenerationConfig()) is None


def test_what_is_kept_is_found_while_another_compiles(
    constraints: ConstraintCompiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go, made = threading.Event(), threading.Event(), []
    compile_now = ConstraintCompiler._compile

    def slow(this: ConstraintCompiler, option: str, value: Any) -> Any:
        if value == ("slow",):
            begun.set()
            assert go.wait(SECONDS)
        made.append(value)
        return compile_now(this, option, value)

    monkeypatch.setattr(ConstraintCompiler, "_compile", slow)
    kept = constraints.constraint_of(choices("a"))
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(constraints.constraint_of(choices("slow"))), daemon=True)
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(SECONDS)
    again: list[Any] = []
    asking = threading.Thread(
        target=lambda: again.append(constraints.constraint_of(choices("a"))), daemon=True
    )
    asking.start()
    asking.join(SECONDS)
    assert again == [kept]
    go.set()
    for thread in threads:
        thread.join(SECONDS)
    assert found == [found[0]] * 3
    assert made == [("a",), ("slow",)]  # once for all who asked
