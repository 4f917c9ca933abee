"""A tiny model whose vocabulary has SabiYarn's tags."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.tasks.family import family_tasks
from tests.export.models import Exported, export_tiny
from tests.tasks.tags import tagged_tokenizer


@pytest.fixture(scope="session")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """An exported tiny model with SabiYarn's tasks; tests must not change the folder."""
    tokenizer = tagged_tokenizer()
    exported = export_tiny(
        tmp_path_factory.mktemp("tagged-model"),
        {"vocab_size": tokenizer.get_vocab_size(), "block_size": 256},
        kv_cache_dtype="float32",
        verify=False,
    )
    tokenizer.save(str(exported.folder / "tokenizer.json"))
    values = family_tasks(lambda token: tokenizer.token_to_id(token) is not None)
    (exported.folder / "tasks.json").write_text(json.dumps(values), encoding="utf-8")
    return exported


@pytest.fixture(scope="session")
def folder(tagged: Exported) -> Path:
    return tagged.folder


@pytest.fixture(scope="module")
def generator(tagged: Exported) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(tagged.folder, num_threads=1)
