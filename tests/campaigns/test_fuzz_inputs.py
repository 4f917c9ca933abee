"""Findings of fuzzing in requests, templates, batches and operators stay fixed; and some damage of every kind."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.campaigns.fuzz.inputs import INPUTS
from tests.campaigns.fuzz.operators import OPERATORS
from tests.campaigns.fuzz.target import Target, outcome

TARGETS = {**INPUTS, **OPERATORS}


@pytest.fixture(scope="module", params=TARGETS)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    with closing(TARGETS[request.param](tmp_path_factory.mktemp(request.param))) as target:
        yield target


def test_what_is_whole_is_read(target: Target) -> None:
    assert outcome(target, target.whole()) == "read"


def test_damage_gives_documented_errors(target: Target) -> None:
    for run in range(40):
        found = outcome(target, target.make(random.Random(f"replay {run}")))
        assert not found.startswith("FINDING"), (run, found)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tasks", b'{"a": %s}' % (b"9" * 5000)),
        ("template_config", json.dumps({"chat_template": [{"name": ["a"], "template": "b"}]}).encode()),
        ("http_body", b'/v1/completions\n{"prompt": "\xff"}'),
        ("http_body", b'/v1/completions\n{"": 1, "prompt": "a"}'),
        ("http_body", b'/v1/chat/completions\n{"": 1, "mssages": []}'),
    ],
)
def test_what_was_found_is_answered(name: str, content: bytes, tmp_path: Path) -> None:
    with closing(TARGETS[name](tmp_path)) as target:
        assert not outcome(target, content).startswith("FINDING")
