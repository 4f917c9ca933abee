"""A hook of mkdocs: pages of docs/ link to files outside of it, as they do in the repository.

Documents and pictures that a page links to become part of the site. Links to other files lead to the repository where
its address is known, and are plain text otherwise.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(!?)\[([^]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
OUTSIDE = (
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "SECURITY.md",
    "benchmarks/README.md",
    "sabiyarn_edge/models/nano/README.md",
    "tests/campaigns/arm/README.md",
    "tests/campaigns/fuzz/README.md",
)
"""Documents that stand outside of docs/."""


def address(source: str) -> str | None:
    """Where a file of the repository stands in the site, or None."""
    if source.startswith("docs/"):
        return source.removeprefix("docs/")
    if source in OUTSIDE or source.endswith((".svg", ".png")):
        return (
            f"repository/{source.replace('README.md', 'front.md')}"  # a README would become a folder's index
        )
    return None


def on_files(files: Files, config: Any) -> Files:
    """Add the documents outside of docs/, and the pictures of benchmarks."""
    pictures = (
        str(path.relative_to(ROOT)) for path in sorted((ROOT / "benchmarks" / "results").glob("*.svg"))
    )
    for source in (*OUTSIDE, *pictures):
        files.append(File.generated(config, str(address(source)), abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Turn links of the repository into links of the site."""
    here = Path(page.file.abs_src_path)
    folder = PurePosixPath(page.file.src_uri).parent

    def of_the_site(match: re.Match[str]) -> str:
        picture, text, target, heading = match.group(1), match.group(2), match.group(3), match.group(4) or ""
        if ":" in target:
            return match.group(0)
        source = Path(os.path.normpath(here.parent / target)).relative_to(ROOT).as_posix()
        place = address(source)
        if place is not None:
            return f"{picture}[{text}]({os.path.relpath(place, folder)}{heading})"
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/HEAD/{source})"
        return text

    return LINK.sub(of_the_site, markdown)
