"""A tiny model, and jobs on it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sabiyarn_edge import EdgeGenerator
from tests.export.models import Exported

__all__ = ["records_of"]


@pytest.fixture(scope="session")
def generator(text_model: Path) -> Iterator[EdgeGenerator]:
    with EdgeGenerator.from_pretrained(text_model, num_threads=1) as generator:
        yield generator


@pytest.fixture(scope="session")
def tasked(tagged: Exported) -> Iterator[EdgeGenerator]:
    """A tiny model that knows SabiYarn's tasks."""
    with EdgeGenerator.from_pretrained(tagged.folder, num_threads=1) as generator:
        yield generator


def records_of(output: Path) -> list[dict[str, Any]]:
    """The records of an output."""
    return [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
