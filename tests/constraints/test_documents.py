"""docs/structured_output.md: its examples run, and print what they promise."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "structured_output.md"

pytestmark = pytest.mark.skipif(not DOCUMENT.is_file(), reason="documents are in the repository only")


def test_the_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    printed = []
    for block in re.findall(
        r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        exec(compile(block, str(DOCUMENT), "exec"), {})
        printed.append(capsys.readouterr().out.strip())
    choice, article = printed
    assert choice in ("life", "liberty", "a nationality")
    found, rest = re.fullmatch(r"(\{.*\}) (.*)", article).groups()  # type: ignore[union-attr]
    assert 1 <= ast.literal_eval(found)["article"] <= 30
    assert rest == "['stop'] [True]"
