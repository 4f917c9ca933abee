"""The maker of tiny checkpoints: the same seed gives the same files, from Python and from the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.data.make_tiny_checkpoint import LAYOUTS, make_tiny_checkpoint

ROOT = Path(__file__).parents[2]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_seed_decides(tmp_path, layout):
    first, again, other = (
        contents(make_tiny_checkpoint(tmp_path / name, layout=layout, seed=seed))
        for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert first == again
    assert first != other


def test_the_command_line_makes_the_same(tmp_path):
    expected = make_tiny_checkpoint(
        tmp_path / "a", layout="sharded", traps=["half", "compiled-prefix"], seed=5, n_layer=3, bias=True
    )
    command = "-m tests.data.make_tiny_checkpoint OUT --layout sharded --trap half --trap compiled-prefix"
    command += " --seed 5 --n-layer 3 --bias"
    arguments = [str(tmp_path / "b") if word == "OUT" else word for word in command.split()]
    subprocess.run([sys.executable, *arguments], check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    assert contents(tmp_path / "b") == contents(expected)


def test_unknown_names_are_refused(tmp_path):
    for bad in ({"layout": "tar"}, {"traps": ["no-such"]}):
        with pytest.raises(ValueError, match="layout must be one of"):
            make_tiny_checkpoint(tmp_path / "x", **bad)
    assert not (tmp_path / "x").exists()
