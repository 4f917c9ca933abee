"""Ends, forks and spawns processes that generate, again and again: no hang, no abort, no wrong token.

    python -m tests.campaigns.process_life [--times 20]

Each case runs so many times, on nano. Prints how often it went well, and the longest time from when a process was told
to end, or began to end by itself, until it was gone. Exits with 1 if a case failed once.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sabiyarn_edge.generator import find_model
from tests.engine.test_gunicorn import OPTIONS, PROMPT, REQUESTS, WAYS, gunicorn

SECONDS = 60.0
"""Longer is a hang, not a slow machine."""

OPEN = """
import multiprocessing, os, signal, sys, threading, time
from sabiyarn_edge import EdgeGenerator
generator = EdgeGenerator.from_pretrained(sys.argv[1], num_threads=1)
endless = dict(max_new_tokens=10**6, overflow="slide", suppress_tokens=[generator.generation_config.eos_token_ids[0]])
def start(call):
    threading.Thread(target=call, daemon=True).start()
    time.sleep(0.05)
def ids(of):
    return of.generate([1, 2, 3], max_new_tokens=5).sequences.tolist()
def there(of, answer):
    answer.put(ids(of))
def child():
    pid = os.fork()
    if pid == 0:
        os._exit(0 if ids(generator) == expected else 9)
    assert os.waitpid(pid, 0)[1] == 0
    assert ids(generator) == expected
def other(method):
    context = multiprocessing.get_context(method)
    answer = context.Queue()
    process = context.Process(target=there, args=(generator, answer))
    process.start()
    assert answer.get() == ids(generator)
    process.join()
    assert process.exitcode == 0
if __name__ == "__main__":
"""
EXPECTED = "expected = ids(generator)"
BUSY = "start(lambda: generator.generate([1], **endless))"
END = "print(time.monotonic(), flush=True); sys.exit(5)"


@dataclass(frozen=True)
class Case:
    """A program, and how it must end."""

    lines: tuple[str, ...]
    status: int = 0
    signal: int | None = None
    """Sent when it has printed a line."""


CASES = {
    "exit while a daemon thread generates": Case((BUSY, END), 5),
    "exit while a daemon thread streams": Case(
        ("start(lambda: list(generator.stream([1], **endless)))", END), 5
    ),
    "exit with a stream that is not read": Case(
        ("stream = generator.stream([1], **endless)", "next(stream)", END), 5
    ),
    "Ctrl-C in generate": Case(
        ("print(time.monotonic(), flush=True)", "generator.generate([1], **endless)"),
        -signal.SIGINT,
        signal.SIGINT,
    ),
    "SIGTERM in generate": Case(
        ("print(time.monotonic(), flush=True)", "generator.generate([1], **endless)"),
        -signal.SIGTERM,
        signal.SIGTERM,
    ),
    "fork after use": Case((EXPECTED, "child()")),
    "fork while generating": Case((EXPECTED, BUSY, "child()")),
    "fork before use": Case(
        ("expected = ids(EdgeGenerator.from_pretrained(sys.argv[1], num_threads=1))", "child()")
    ),
    "spawn": Case(("other('spawn')",)),
    "forkserver": Case(("other('forkserver')",)),
}


def run(case: Case, model: Path, folder: Path) -> float | None:
    """Run a program; gives the seconds that its end took, where it tells when it began.

    Raises:
        AssertionError: it ended in another way.
    """
    program = folder / "program.py"  # a file, which spawned processes import
    program.write_text(OPEN + "".join(f"    {line}\n" for line in case.lines), encoding="utf-8")
    process = subprocess.Popen(
        [sys.executable, str(program), str(model)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        began = None
        if "print" in "".join(case.lines):
            assert process.stdout is not None
            began = float(process.stdout.readline())
        if case.signal is not None:
            time.sleep(0.2)
            began = time.monotonic()
            process.send_signal(case.signal)
        _, said = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise AssertionError("it hangs") from None
    ended = time.monotonic()
    assert process.returncode == case.status, f"status {process.returncode}: {said}"
    return None if began is None else ended - began


def run_gunicorn(way: str, model: Path, folder: Path, busy: bool) -> None:
    """Raises: AssertionError: a worker of gunicorn --preload did not generate, or gunicorn did not end."""
    from sabiyarn_edge import EdgeGenerator

    with EdgeGenerator.from_pretrained(model, num_threads=1) as generator:
        expected = generator.generate(PROMPT, **OPTIONS).sequences.tolist()
    socket = folder / "socket"
    socket.unlink(missing_ok=True)
    with gunicorn(way, model, socket, busy=busy) as client:
        for _ in range(REQUESTS):
            answer = client.get("http://x/", headers={"Connection": "close"})
            assert (answer.status_code, answer.json()) == (200, expected)


def ways(model: Path, folder: Path) -> Iterator[tuple[str, Callable[[], float | None]]]:
    """Each case with what runs it once."""
    for name, case in CASES.items():
        yield name, lambda case=case: run(case, model, folder)
    for way in WAYS:
        for busy in (False, True):
            name = f"gunicorn --preload, {way}{', the master generates' if busy else ''}"
            yield name, lambda way=way, busy=busy: run_gunicorn(way, model, folder, busy)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.process_life",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--times", type=int, default=20)
    arguments = parser.parse_args()
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # a shell starts what runs in the background so
        signal.signal(signal.SIGINT, signal.default_int_handler)
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, once in ways(find_model("nano"), Path(folder)):
            seconds, faults = [], []
            for _ in range(arguments.times):
                try:
                    seconds.append(once())
                except AssertionError as error:
                    faults.append(str(error)[:500])
            told = [value for value in seconds if value is not None]
            report[name] = {"well": len(seconds), "of": arguments.times, "faults": faults[:3]}
            if told:
                report[name]["longest_end_seconds"] = round(max(told), 2)
            print(name, report[name], file=sys.stderr, flush=True)
    print(json.dumps(report, indent=1))
    return 0 if all(not case["faults"] for case in report.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
