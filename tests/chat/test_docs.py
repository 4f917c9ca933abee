"""The examples of docs/chat.md run, in their order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

DOCUMENT = Path(__file__).parents[2] / "docs" / "chat.md"

pytest.importorskip("jsonschema")
pytest.importorskip("llguidance")


@pytest.mark.skipif(not DOCUMENT.is_file(), reason="documents are in the repository only")
def test_examples_run(
    chat_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sabiyarn-chat").symlink_to(chat_folder)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(
        r"^```python\n(.*?)^```", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    try:
        for block in blocks:
            exec(compile(block, str(DOCUMENT), "exec"), names)
    finally:
        names["generator"].close()
    assert (tmp_path / "talk.chat").is_file()
    told = capsys.readouterr().out
    assert "get_weather {'town':" in told or "the answer ended before" in told or names["answer"].reasoning
