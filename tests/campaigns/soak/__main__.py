"""Makes thousands of calls from several threads: no crash, no growth, and each call gives what it gives alone.

    python -m tests.campaigns.soak [MODEL] [--generations 10000] [--threads 4] [--seed 0] [--out FILE]

A third as many random calls are made alone first, one after the other: they are the oracle. Then one thread makes them
again, several threads with a generator each, and several threads that share one generator. Another thread cancels calls
now and then and reads memory_usage(). Prints the seed and one JSON object. Exits with 1 if a call gave something else
than alone, or memory grew.
"""

from __future__ import annotations

import argparse
import ctypes
import faulthandler
import gc
import itertools
import json
import random
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sabiyarn_edge import EdgeGenerator, prefix_mask
from sabiyarn_edge.bench.machine import describe_machine
from sabiyarn_edge.options.generation_config import OptionWarning
from sabiyarn_edge.system.process_memory import process_memory
from tests.campaigns.soak.calls import POSITIONS, Calls, Cancellations, Outcome

DRIFT_BYTES_PER_THREAD = 2**20
"""Growth of the process that is allowed in the second half of a phase. The C library has one heap for each thread, and
keeps its pages that still hold a small block."""
M_MMAP_THRESHOLD, MMAP_BYTES = -3, 128 * 1024  # glibc's malloc.h; its own threshold at start
ROUNDS = 20
EDGE_ROUNDS = 3  # of the second half's ten
CANCEL_SECONDS = 0.2  # mean time between two cancellations from outside
STUCK_SECONDS = 300  # a round takes seconds; after this long all stacks are printed and the process ends


@dataclass
class Phase:
    """The results of one way of making the calls."""

    name: str
    calls: int = 0
    equal: int = 0
    cancelled: int = 0
    different: list[str] = field(default_factory=list)
    kinds: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    anonymous: list[int] = field(default_factory=list)
    """Bytes after each round, keys and values freed."""

    def count(self, number: int, found: Outcome | BaseException, alone: Outcome) -> None:
        """Compare what call `number` gave with what it gave alone."""
        difference = "".join(traceback.format_exception(found)) if isinstance(found, BaseException) else ""
        if isinstance(found, Outcome):
            difference = found.differs_from(alone)
        self.calls += 1
        self.kinds[alone.kind] += 1
        if not difference:
            self.equal += 1
        elif difference == "cancelled":
            self.cancelled += 1
        else:
            self.different.append(f"call {number}: {difference}")

    def drift(self) -> int | None:
        """Bytes by which the process grew in the second half, or None where the system does not tell.

        From the least of a few rounds to the least of the last few: where the call before a sample was cancelled from
        outside, its scratch is still there, and gone with the next.
        """
        warm = self.anonymous[len(self.anonymous) // 2 :]
        return min(warm[-EDGE_ROUNDS:]) - min(warm[:EDGE_ROUNDS]) if warm else None

    def to_json(self) -> dict[str, Any]:
        """Ready for JSON; of the differences the first five."""
        return {
            "phase": self.name,
            "calls": self.calls,
            "equal": self.equal,
            "cancelled_from_outside": self.cancelled,
            "different": len(self.different),
            "first_differences": self.different[:5],
            "seconds": round(self.seconds, 1),
            "anonymous_mib": [round(nbytes / 2**20, 2) for nbytes in self.anonymous],
            "drift_mib": None if self.drift() is None else round(self.drift() / 2**20, 2),
            "kinds": dict(sorted(self.kinds.items())),
        }


class Soak:
    """One run."""

    def __init__(self, model: str, calls: int, threads: int, seed: int, folder: Path) -> None:
        self._model, self._calls, self._threads, self._seed, self._folder = (
            model,
            calls,
            threads,
            seed,
            folder,
        )
        self._alone: list[Outcome] = []
        self._cancellations = Cancellations()

    def run(self) -> list[Phase]:
        """Alone, then by one thread, with a generator per thread, and with one that all share."""
        generator = self._open()
        session = generator.session([5, 6, 7, 8])
        session.generate(max_new_tokens=4)
        session.save(self._folder / "kept.session")
        maker = self._maker(generator, 0)
        self._alone = [maker.one(number) for number in range(self._calls)]
        del maker, generator
        phases = [self._make_calls("one thread", [self._open()])]
        phases.append(
            self._make_calls("a generator per thread", [self._open() for _ in range(self._threads)])
        )
        phases.append(self._make_calls("one generator for all threads", [self._open()] * self._threads))
        return phases

    def _maker(self, generator: EdgeGenerator, thread: int) -> Calls:
        return Calls(
            generator,
            self._seed,
            self._folder / "kept.session",
            self._folder / f"{thread}.session",
            self._cancellations,
        )

    def _open(self) -> EdgeGenerator:
        """A generator that has loaded what it loads late, and has had its largest buffers."""
        generator = EdgeGenerator.from_pretrained(self._model, num_threads=1, max_length=POSITIONS)
        generator.generate([5, 6, 7], max_new_tokens=1, attn_mask=prefix_mask(3))
        generator.generate([5] * (POSITIONS - 8), max_new_tokens=8, num_beams=4)
        return generator

    def _make_calls(self, name: str, generators: Sequence[EdgeGenerator]) -> Phase:
        phase, started = Phase(name), time.perf_counter()
        makers = [self._maker(generator, thread) for thread, generator in enumerate(generators)]
        done = threading.Event()
        canceller = threading.Thread(target=self._cancel, args=(generators, done))
        if len(generators) > 1:
            canceller.start()
        with ThreadPoolExecutor(len(generators)) as pool:
            for first in range(0, self._calls, max(self._calls // ROUNDS, 1)):
                numbers = range(first, min(first + max(self._calls // ROUNDS, 1), self._calls))
                faulthandler.dump_traceback_later(STUCK_SECONDS, exit=True)
                ways = [
                    pool.submit(self._share, maker, numbers[i :: len(makers)])
                    for i, maker in enumerate(makers)
                ]
                found = dict(itertools.chain.from_iterable(way.result() for way in ways))
                for number in numbers:
                    phase.count(number, found[number], self._alone[number])
                if process_memory():
                    phase.anonymous.append(_anonymous_bytes(generators))
        faulthandler.cancel_dump_traceback_later()
        done.set()
        if len(generators) > 1:
            canceller.join()
        phase.seconds = time.perf_counter() - started
        return phase

    @staticmethod
    def _share(maker: Calls, numbers: Sequence[int]) -> list[tuple[int, Outcome | BaseException]]:
        """One thread's calls of a round."""
        found: list[tuple[int, Outcome | BaseException]] = []
        for number in numbers:
            try:
                found.append((number, maker.one(number)))
            except Exception as error:  # a finding, to be reported with its number
                found.append((number, error))
        return found

    def _cancel(self, generators: Sequence[EdgeGenerator], done: threading.Event) -> None:
        rng = random.Random(self._seed)
        while not done.wait(rng.expovariate(1 / CANCEL_SECONDS)):
            generator = rng.choice(generators)
            self._cancellations.cancel(generator)
            assert generator.memory_usage()["kv_cache"] >= 0


def _anonymous_bytes(generators: Sequence[EdgeGenerator]) -> int:
    """Return the private memory without what depends on the size of the last calls: KV cache and onnxruntime's scratch.

    onnxruntime gives the scratch of a prompt back after it, and that of decode steps when the next prompt comes.
    """
    for generator in generators:
        generator.generate([5], max_new_tokens=1)
        generator.free_kv_cache()
    gc.collect()
    return process_memory()["process_anonymous"]


def keep_large_blocks_out_of_heaps() -> None:
    """Have the C library take large blocks from the system directly and give them back at once.

    glibc raises the size that it calls large with every such block, and then keeps, at the top of each thread's
    heap, what the thread's largest call freed: 7 MiB for nano at 600 positions, now there and now not. It does not
    grow, but would hide what does.
    """
    with suppress(OSError, TypeError, AttributeError):  # musl, macOS
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.campaigns.soak",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", nargs="?", default="nano")
    parser.add_argument("--generations", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the JSON there")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", OptionWarning)  # of random options, some change nothing beside others
    keep_large_blocks_out_of_heaps()
    print(f"seed {arguments.seed}", file=sys.stderr)
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(
            arguments.model, -(-arguments.generations // 3), arguments.threads, arguments.seed, Path(folder)
        )
        phases = soak.run()
    drifts = [phase.drift() or 0 for phase in phases]
    allowed = [DRIFT_BYTES_PER_THREAD * threads for threads in (1, arguments.threads, arguments.threads)]
    report = {
        "model": arguments.model,
        "seed": arguments.seed,
        "threads": arguments.threads,
        "generations": sum(phase.calls for phase in phases),
        "allowed_drift_mib": [nbytes / 2**20 for nbytes in allowed],
        "phases": [phase.to_json() for phase in phases],
        **describe_machine(("sabiyarn-edge", "onnxruntime", "numpy", "tokenizers")),
    }
    text = json.dumps(report, indent=1, ensure_ascii=False)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n", encoding="utf-8")
    flat = all(drift <= most for drift, most in zip(drifts, allowed, strict=True))
    return 0 if flat and not any(phase.different for phase in phases) else 1


if __name__ == "__main__":
    sys.exit(main())
