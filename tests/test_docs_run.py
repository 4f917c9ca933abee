"""The documents' examples run as they stand, from a wheel too, and print what is shown."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from sabiyarn_edge.cli import main

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PROGRAM = "sabiyarn-edge"
TESTED_BY = {
    "server.md": "tests/server/test_documents.py",  # needs the server
    "chat.md": "tests/chat/test_docs.py",  # needs a model with a template
    "structured_output.md": "tests/constraints/test_documents.py",
    "batch.md": "tests/jobs/test_documents.py",
    "scale.md": "tests/ray/test_documents.py",  # needs Ray
    "evaluation.md": "tests/jobs/test_documents.py",
}
"""Pages whose blocks have tests of their own."""
NEEDS = "<!-- needs: "
"""In the line above a block that only runs with what follows: a model, a package."""

pytestmark = pytest.mark.skipif(not DOCUMENTS[0].is_file(), reason="documents are in the repository only")


def blocks_in_order(document: Path) -> list[tuple[str, str, str, str]]:
    """The line above each block, its language, its text, and the block without a language behind it: its output."""
    return re.findall(
        r"^([^\n]*)\n```(\w*)\n([\s\S]*?)^```$(?:\n\n```\n([\s\S]*?)^```$)?",
        document.read_text(encoding="utf-8"),
        re.MULTILINE,
    )


@pytest.mark.parametrize(
    "document",
    [page for page in DOCUMENTS if not (REPOSITORY / TESTED_BY.get(page.name, "none")).is_file()],
    ids=lambda path: path.name,
)
def test_python_runs_as_it_stands(
    document: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All blocks of a page, one after the other, in a folder of their own; output that is shown is what they print."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "__main__"}
    for index, (above, language, block, output) in enumerate(blocks_in_order(document)):
        if language != "python" or above.startswith(NEEDS):
            continue
        exec(compile(block, f"{document.name}, block {index}", "exec"), names)
        printed = capsys.readouterr().out
        assert not output or printed == output


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_print_what_is_shown(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for above, language, block, output in blocks_in_order(document):
        if language != "sh" or not output or above.startswith(NEEDS):
            continue
        commands = [shlex.split(part) for line in block.splitlines() for part in line.split("&&")]
        for words in commands:
            if Path(words[0]).name == PROGRAM:
                assert main(words[1:]) == 0
        assert capsys.readouterr().out == output
