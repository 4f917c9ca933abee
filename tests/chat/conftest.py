"""A tiny model that chats in the family's form."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sabiyarn_edge import EdgeGenerator
from tests.chat.family import family_folder

pytest.importorskip("jinja2")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tests must not change it."""
    return family_folder(tmp_path_factory.mktemp("chat-model"))


@pytest.fixture
def generator(folder: Path) -> Iterator[EdgeGenerator]:
    with EdgeGenerator.from_pretrained(folder, num_threads=1) as generator:
        yield generator
