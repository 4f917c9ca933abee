"""What messages and documents tell people to install."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sabiyarn_edge.system.installation import SOURCE, install_command

REPOSITORY = Path(__file__).parents[2]
NAME = "sabiyarn-edge"


def test_the_command_names_extras_and_flags() -> None:
    assert install_command("serve").startswith(f'pip install "{SOURCE}[serve]"')
    assert install_command("", "--force-reinstall").startswith(f"pip install --force-reinstall {SOURCE}")


def test_extras_that_are_named_exist() -> None:
    extras = set(importlib.metadata.metadata(NAME).get_all("Provides-Extra") or ())
    named = set()
    for path in REPOSITORY.glob("sabiyarn_edge/**/*.py"):
        named |= set(re.findall(r"install_command\([\"'](\w+)[\"']\)", path.read_text(encoding="utf-8")))
    assert named <= extras


@pytest.mark.skipif(SOURCE == NAME, reason="an index of packages has it")
def test_nobody_is_told_to_fetch_what_is_not_published() -> None:
    pages = [
        *REPOSITORY.glob("*.md"),
        *REPOSITORY.glob("docs/*.md"),
        *REPOSITORY.glob("sabiyarn_edge/**/*.py"),
    ]
    for page in pages:
        for line in page.read_text(encoding="utf-8").splitlines():
            assert not re.search(rf"pip install\b.*[ \"']{NAME}(\[|[\"'`]|\s|$)", line), (
                f"{page.name}: {line}"
            )


def test_the_source_without_compiled_modules_says_what_to_do() -> None:
    code = "import sys; sys.modules['sabiyarn_edge._core'] = None\nfrom sabiyarn_edge import EdgeGenerator"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode != 0
    assert "Run `pip install -e .` in the checkout" in done.stderr.splitlines()[-1]
