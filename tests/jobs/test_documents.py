"""What docs/batch.md and docs/evaluation.md show runs as it stands there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.test_docs import REPOSITORY, code

EXAMPLES = [
    pytest.param(block, id=f"{name}-{place}")
    for name in ("batch", "evaluation")
    if (document := REPOSITORY / "docs" / f"{name}.md").is_file()
    for place, block in enumerate(code(document, "python"))
]


@pytest.mark.parametrize("block", EXAMPLES)
def test_example_runs(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "the document", "exec"), {})
    assert capsys.readouterr().out
