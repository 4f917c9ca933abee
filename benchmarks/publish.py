"""Makes the tables of documents and the pictures from the committed results.

python -m benchmarks publish            tables and pictures
python -m benchmarks publish --tables   tables alone, without matplotlib
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.committed import RESULTS, devices, load_others, load_results
from benchmarks.tables import blocks, replaced

ROOT = Path(__file__).parents[1]
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md", ROOT / "benchmarks" / "README.md")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tables", action="store_true", help="tables alone")
    parser.add_argument(
        "--png", type=Path, help="write the pictures into this folder, as PNG, and nothing else"
    )
    args = parser.parse_args()
    results = load_results()
    if not args.png:
        generated = blocks(results, load_others())
        for page in PAGES:
            page.write_text(replaced(page.read_text(encoding="utf-8"), generated), encoding="utf-8")
    if not args.tables:
        from benchmarks.pictures import draw

        for name, result in results.items():
            draw(
                name, result, (args.png or RESULTS) / f"{devices()[0]}_{name}.{'png' if args.png else 'svg'}"
            )
    return 0
