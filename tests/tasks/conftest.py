"""A tiny model whose vocabulary has SabiYarn's tags."""

from __future__ import annotations

from pathlib import Path

import pytest

from sabiyarn_edge import EdgeGenerator
from tests.export.models import Exported


@pytest.fixture(scope="session")
def folder(tagged: Exported) -> Path:
    return tagged.folder


@pytest.fixture(scope="module")
def generator(tagged: Exported) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(tagged.folder, num_threads=1)
