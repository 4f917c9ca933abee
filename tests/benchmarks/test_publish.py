"""The published tables are those of the committed results."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

publish = pytest.importorskip("benchmarks.publish", reason="needs a checkout")
committed = pytest.importorskip("benchmarks.committed", reason="needs a checkout")
tables = pytest.importorskip("benchmarks.tables", reason="needs a checkout")


@pytest.mark.parametrize("page", publish.PAGES, ids=lambda page: str(page.relative_to(publish.ROOT)))
def test_the_page_holds_what_the_results_say(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == tables.replaced(text, tables.blocks(committed.load_results(), committed.load_others())), (
        "run `python -m benchmarks publish`"
    )


def test_every_table_is_published() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in publish.PAGES)
    for name in tables.blocks(committed.load_results(), committed.load_others()):
        assert f"<!-- {name}: begin -->" in pages
        assert f"<!-- {name}: end -->" in pages


@pytest.mark.parametrize("page", publish.PAGES, ids=lambda page: str(page.relative_to(publish.ROOT)))
def test_the_pictures_are_there_and_small(page: Path) -> None:
    for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        assert 1000 < (page.parent / name).stat().st_size < 300_000  # bytes


def test_a_block_is_replaced_and_the_rest_left_alone() -> None:
    text = "a\n<!-- x: begin -->\nold\n<!-- x: end -->\nb\n<!-- y: begin -->\nkept\n<!-- y: end -->\n"
    assert tables.replaced(text, {"x": "new", "z": "nowhere"}) == text.replace("old", "new")
