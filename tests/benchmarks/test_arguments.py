"""What benchmarks refuse before they run for minutes."""

from __future__ import annotations

from argparse import ArgumentTypeError
from pathlib import Path

import pytest

arguments = pytest.importorskip("benchmarks.arguments", reason="needs a checkout")


def test_a_count_is_at_least_one() -> None:
    assert arguments.count("12") == 12
    for text in ("0", "-1", "1.5", "many", ""):
        with pytest.raises(ArgumentTypeError, match="is not an integer of at least 1"):
            arguments.count(text)


def test_a_file_can_be_written_where_its_folder_is(tmp_path: Path) -> None:
    assert arguments.out_file(str(tmp_path / "new.json")) == tmp_path / "new.json"
    with pytest.raises(ArgumentTypeError, match="is a folder"):
        arguments.out_file(str(tmp_path))
    with pytest.raises(ArgumentTypeError, match=f"there is no folder {tmp_path / 'absent'}"):
        arguments.out_file(str(tmp_path / "absent" / "new.json"))
