"""Kills writers at random moments (`kill -9`), and looks at what they leave.

    python -m tests.campaigns.kills [--kills 50] [--seed N] [--writer export|session]

Each writer is a process that writes two states alternately, without end. It is killed between 0 and 1.5 seconds after
its first write. The files must then hold one of the two states, complete. After the next write that runs to its end
there must be no leftovers. Prints one JSON object per writer. Needs torch.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sabiyarn_edge import EdgeGenerator
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint

ROOT = Path(__file__).parents[2]
LONGEST_LIFE = 1.5  # seconds after the first write; a tiny export takes about half a second
SHAPE = {"n_heads": 8, "n_embd": 128, "vocab_size": 1009, "n_layer": 1, "block_size": 64}
PROMPTS = ([5, 77, 101], [5, 77, 101, 9, 30])
STATES = ("one", "other")


@dataclass(frozen=True)
class Writer:
    """Something that writes, and how to see which of the two states is there."""

    write: Callable[[Path, int], None]
    """(folder, 0 or 1)"""
    found: Callable[[Path], int]
    """0 or 1; anything else that is there is an AssertionError or an error of the reader's."""
    target: str
    """Name of what is written, in the folder."""


def prepare(folder: Path) -> None:
    """Two checkpoints of the same shape and their exports."""
    for state, name in enumerate(STATES):
        make_tiny_checkpoint(folder / f"checkpoint-{name}", seed=state, **SHAPE)
        _export(folder, state, f"model-{name}")


def write_export(folder: Path, state: int) -> None:
    _export(folder, state, "target")


def _export(folder: Path, state: int, name: str) -> None:
    from sabiyarn_edge.export import export_model  # here, since torch takes seconds to import

    source = folder / f"checkpoint-{STATES[state]}"
    export_model(source, folder / name, dtype="float32", force=True, verify=False, progress=False)


def found_export(folder: Path) -> int:
    written = _hashes(folder / "target")
    state = [_hashes(folder / f"model-{name}") for name in STATES].index(written)
    EdgeGenerator.from_pretrained(folder / "target", num_threads=1).generate(PROMPTS[0], max_new_tokens=2)
    return state


def _hashes(folder: Path) -> dict[str, str]:
    """Return the hash of each file but the report, which has the time in it."""
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert files.pop("export_report.json", None)
    return files


def write_session(folder: Path, state: int) -> None:
    generator = _generator(folder)
    session = generator.session(PROMPTS[state])
    session.generate(max_new_tokens=40)
    for _ in range(20):
        session.save(folder / "target")


def found_session(folder: Path) -> int:
    generator = _generator(folder)
    session = generator.load_session(folder / "target")
    tokens = session.tokens
    state = [tokens[: len(prompt)] == prompt for prompt in PROMPTS][1]
    fresh = _generator(folder).generate([*tokens, 3], max_new_tokens=5)
    continued = session.generate([3], max_new_tokens=5)
    assert continued.timings.reused_tokens == len(tokens)
    assert (continued.sequences == fresh.sequences).all()
    return int(state)


def _generator(folder: Path) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(folder / "model-one", num_threads=1)


WRITERS = {
    "export": Writer(write_export, found_export, "target"),
    "session": Writer(write_session, found_session, "target"),
}


def write_for_ever(name: str, folder: Path) -> None:
    """Write without end. Runs in the process that is killed."""
    for turn in itertools.count():
        WRITERS[name].write(folder, turn % 2)
        if turn == 0:
            print("written", flush=True)


def kill_writer(name: str, folder: Path, seconds: float) -> None:
    """Start a writer, wait for its first write and kill it so many seconds later."""
    command = [sys.executable, "-m", "tests.campaigns.kills", "--write", name, str(folder)]
    writer = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    try:
        assert writer.stdout.readline() == "written\n"
        time.sleep(seconds)
    finally:
        writer.kill()
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL


def kill_repeatedly(name: str, kills: int, seed: int) -> dict[str, object]:
    """Kill one writer so many times in the same folder.

    Returns:
        How often each state was found, and how many kills left something behind for the next writer.
    """
    writer, moments = WRITERS[name], random.Random(seed)
    states: Counter[int] = Counter()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare(folder)
        before = {path.name for path in folder.iterdir()}
        leaving = 0
        for _ in range(kills):
            kill_writer(name, folder, moments.uniform(0, LONGEST_LIFE))
            partials = set(folder.glob("**/.*.partial"))
            left = {path for path in partials if not partials & set(path.parents)}
            assert len(left) <= 1, left  # those of the kill before are gone
            leaving += len(left)
            states[writer.found(folder)] += 1
        writer.write(folder, 0)
        writer.write(folder, 1)
        writer.found(folder)
        assert {path.name for path in folder.iterdir()} == {*before, writer.target}
    return {
        "writer": name,
        "kills": kills,
        "seed": seed,
        "found": dict(sorted(states.items())),
        "kills_that_left_a_partial": leaving,
    }


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=50, help="in all")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--writer", choices=WRITERS, action="append")
    parser.add_argument("--write", nargs=2, metavar=("WRITER", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("error")
    if options.write:
        write_for_ever(options.write[0], Path(options.write[1]))
        return
    names = options.writer or list(WRITERS)
    seed = random.randrange(2**32) if options.seed is None else options.seed
    print(f"seed {seed}", file=sys.stderr)
    for index, name in enumerate(names):
        share = options.kills // len(names) + (index < options.kills % len(names))
        print(json.dumps(kill_repeatedly(name, share, seed)), flush=True)


if __name__ == "__main__":
    main()
