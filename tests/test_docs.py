"""What the documents tell people to type, and where they point."""

from __future__ import annotations

import importlib.util
import itertools
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from sabiyarn_edge.cli.commands import _parser
from sabiyarn_edge.cli.parser import UsageError
from sabiyarn_edge.model_folder.config import ModelConfig

BENCHMARKS = pytest.importorskip("benchmarks.__main__", reason="needs a checkout").BENCHMARKS
REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
PAGES = [
    *DOCUMENTS,
    *(REPOSITORY / name for name in ("CONTRIBUTING.md", "SECURITY.md", "benchmarks/README.md")),
]
PROGRAM = "sabiyarn-edge"
pytestmark = pytest.mark.skipif(not DOCUMENTS[0].is_file(), reason="documents are in the repository only")


def code(document: Path, language: str) -> list[str]:
    """Blocks of code in a language."""
    return re.findall(
        rf"^```{language}\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )


def command_lines(document: Path) -> list[list[str]]:
    """Commands in blocks and in backticks, as words, split where one ends and another begins."""
    text = document.read_text(encoding="utf-8")
    lines = [line for block in code(document, "sh") for line in block.splitlines()]
    lines += [found for found in re.findall(r"`([^`\n]+)`", text) if " " in found]
    return [shlex.split(part, comments=True) for line in lines for part in re.split(r"&&|;|\|", line)]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_of_ours_are_understood(document: Path) -> None:
    for words in command_lines(document):
        if not words or Path(words[0]).name != PROGRAM or "..." in words:
            continue
        words = [word for word in words[1:] if not word.startswith("[")]
        try:
            _parser(words).parse_all(words)
        except UsageError as error:
            missing = re.search("the following arguments are required", str(error))
            # In running text a command may stand without what it is given.
            assert missing, f"{document.name}: {PROGRAM} {' '.join(words)}: {error}"


@pytest.mark.parametrize("document", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_modules_exist(document: Path) -> None:
    for words in command_lines(document):
        for before, name, *rest in itertools.zip_longest(words, words[1:], words[2:], fillvalue=""):
            if before == "-m" and name.split(".")[0] in ("sabiyarn_edge", "tests", "tools", "benchmarks"):
                assert importlib.util.find_spec(name), f"{document.name}: {name}"
            if before == "-m" and name == "benchmarks" and rest[0].isidentifier():
                assert rest[0] in BENCHMARKS, f"{document.name}: {rest[0]}"


@pytest.mark.parametrize("document", PAGES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_lead_somewhere(document: Path) -> None:
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        path, _, heading = target.partition("#")
        found = (document.parent / path).resolve() if path else document
        assert found.exists(), f"{document.name}: {target}"
        if heading:
            titles = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_numbers_of_the_bundled_model_are_its_own() -> None:
    nano = REPOSITORY / "sabiyarn_edge" / "models" / "nano"
    config = ModelConfig.load(nano).gptjx
    numbers = {
        r"(?:the model's|width 128,) (\d+) positions": config.block_size,
        r"(\d+) layers of width": config.n_layer,
        r"layers of width (\d+)": config.n_embd,
        r"`nano` \((\d+) wide": config.n_embd,
        r"`nano` \(\d+ wide, (\d+) layers": config.n_layer,
    }
    texts = [page.read_text(encoding="utf-8") for page in [*PAGES, nano / "README.md"]]
    for pattern, number in numbers.items():
        found = [told for text in texts for told in re.findall(pattern, text)]
        assert set(found) == {str(number)}, pattern


def test_every_page_is_in_the_table_of_contents() -> None:
    linked = set(
        re.findall(r"\]\((\w+\.md)\)", (REPOSITORY / "docs" / "index.md").read_text(encoding="utf-8"))
    )
    assert {page.name for page in (REPOSITORY / "docs").glob("*.md")} - {"index.md"} <= linked


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd here")
    (unit,) = code(REPOSITORY / "docs" / "raspberry_pi.md", "ini")
    here = re.sub("^ExecStart=.*$", "ExecStart=/bin/true", unit, flags=re.MULTILINE).replace(
        "User=sabiyarn", "User=root"
    )
    file = tmp_path / "sabiyarn.service"
    file.write_text(here, encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", str(file)], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if "sabiyarn.service" in line]
    assert complaints == []
