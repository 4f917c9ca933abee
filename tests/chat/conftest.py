"""A tiny model that chats in the family's form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sabiyarn_edge import EdgeGenerator

pytest.importorskip("jinja2")


@pytest.fixture
def generator(chat_folder: Path) -> Iterator[EdgeGenerator]:
    with EdgeGenerator.from_pretrained(chat_folder, num_threads=1) as generator:
        yield generator
