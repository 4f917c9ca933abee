"""A cluster on paper: many nodes and lines, simulated through the policy code that runs real ones.

    python -m benchmarks cluster [--nodes 1000] [--lines 1000000000] [--failures 1] [--texts FILE]
                                [--variants] [--out FILE]

What decides is the code of a real job: `Dispatch` cuts lines into blocks, gives them to nodes and takes back those of a
lost one; `Window` bounds what is given out, and how far reading runs ahead of writing in order. Simulated are time and
nodes: a node computes its blocks one after another, at its own speed, and fails at random. A failure costs what it had,
the time until it is found, and the time until another node stands in its place. At the start all nodes copy the model
from one store. One process reads and writes all lines, so many microseconds each.

The bound is the sum of all tokens, divided by the sum of the nodes' speeds: nothing is lost, and nobody waits.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.arguments import count, out_file
from benchmarks.output import put_out
from sabiyarn_edge.jobs.batch import DEFAULT_ROWS
from sabiyarn_edge.jobs.dispatch import BLOCK_ROWS, MOST_LOSSES, Block, Dispatch, cluster_window

UDHR_LINES = {
    6: 12, 10: 1, 14: 2, 20: 8, 28: 17, 37: 23, 44: 20, 56: 50, 78: 59, 110: 26, 164: 53, 220: 23, 523: 16,
}  # fmt: skip
"""Tokens -> lines: the 310 lines of the Universal Declaration of Human Rights in ten languages, as nano's tokenizer
counts them. A translation has about as many tokens as its text."""
DAY = 86_400.0  # seconds
VARIANTS: dict[str, dict[str, float]] = {
    "as given": {},
    "no failures": {"failures_per_day": 0.0},
    "a failure of each node in an hour": {"failures_per_day": 24.0},
    "the same, found after 300 s": {"failures_per_day": 24.0, "found_seconds": 300.0},
    "speeds of 0.2 to 1.8": {"spread": 0.8},
    "the model from a store of 10 MiB/s": {"store_mib_per_second": 10.0},
    "a line takes as long as the nodes need": {"line_us": 2200.0},
}
"""Name of each run of --variants -> the figures of Cluster that it changes."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The figures of a simulated cluster."""

    nodes: int
    lines: int
    block_lines: int = BLOCK_ROWS * DEFAULT_ROWS
    lines_each: int = BLOCK_ROWS * DEFAULT_ROWS
    """Lines of which the simulation moves one sum."""
    tokens_per_second: float = 500.0
    """New tokens of a node of average speed, prefill of their prompts included."""
    spread: float = 0.2
    """Speeds are uniform in 1 - spread ... 1 + spread times that."""
    failures_per_day: float = 1.0
    """Each node fails so often, on average."""
    found_seconds: float = 30.0
    """Until the job learns that a node failed."""
    replaced_seconds: float = 120.0
    """From there until another node has loaded the model."""
    model_mib: float = 130.0
    store_mib_per_second: float = 1000.0
    """Bandwidth of the store that all nodes copy the model from, shared by them."""
    line_us: float = 30.0
    """To read a line, note its id and write its record, in the one process that does."""
    seed: int = 1


@dataclass(slots=True, eq=False)
class _Item:
    lines: int
    tokens: int
    done: bool = False


@dataclass(slots=True, eq=False)
class _Node:
    speed: float
    blocks: deque[Block[_Item]]
    up: bool = False
    life: int = 0
    """How often it has failed: events of an earlier life are void."""


class Simulation:
    """One run.

    Args:
        cluster: what is simulated.
        lengths: tokens -> share of the lines; any scale.
        next_failure: seconds that a node works until it fails, given its number; None: at random.
    """

    def __init__(
        self,
        cluster: Cluster,
        lengths: dict[int, int],
        next_failure: Callable[[int], float] | None = None,
    ) -> None:
        self._cluster = cluster
        self._draw = random.Random(cluster.seed)
        self._items = _items(cluster, lengths)
        self._next_failure = next_failure or self._random_failure
        low, high = 1 - cluster.spread, 1 + cluster.spread
        self._nodes = [
            _Node(cluster.tokens_per_second * self._draw.uniform(low, high), deque())
            for _ in range(cluster.nodes)
        ]
        self._dispatch: Dispatch[_Item] = Dispatch(cluster.block_lines)
        self._window = cluster_window(cluster.nodes, cluster.block_lines)
        self._events: list[tuple[float, int, Callable[[Any], None], Any]] = []
        self._numbers = 0
        self._order: deque[_Item] = deque()  # read and not yet written
        self._ready: deque[_Item] = deque()  # of these, not yet given out
        self._waiting_lines = 0
        self._exhausted = self._waking = False
        self._driver_free = 0.0
        self.now = 0.0
        self.tokens = self.failures = self.most_waiting = self.blocks = 0

    def run(self) -> dict[str, Any]:
        """Simulate to the last line that is written."""
        cluster = self._cluster
        for number in range(cluster.nodes):
            self._at((number + 1) * cluster.model_mib / cluster.store_mib_per_second, self._join, number)
        self._read()
        while self._order or not self._exhausted:
            self.now, _, event, argument = heapq.heappop(self._events)
            event(argument)
            self._read()
            self._assign()
        bound = self.tokens / sum(node.speed for node in self._nodes)
        return {
            "makespan_seconds": self.now,
            "bound_seconds": bound,
            "makespan_of_bound": self.now / bound,
            "driver_seconds": 1e-6 * cluster.line_us * cluster.lines,
            "tokens": self.tokens,
            "failures": self.failures,
            "blocks": self.blocks,
            "most_lines_waiting": self.most_waiting,
        }

    # --- Events

    def _at(self, when: float, event: Callable[[Any], None], argument: Any) -> None:
        self._numbers += 1
        heapq.heappush(self._events, (when, self._numbers, event, argument))

    def _join(self, number: int) -> None:
        node = self._nodes[number]
        node.up = True
        self._dispatch.join(number)
        self._at(self.now + self._next_failure(number), self._fail, number)

    def _random_failure(self, number: int) -> float:
        rate = self._cluster.failures_per_day / DAY
        return self._draw.expovariate(rate) if rate else float("inf")

    def _fail(self, number: int) -> None:
        node = self._nodes[number]
        node.up, node.life = False, node.life + 1
        node.blocks.clear()
        self.failures += 1
        self._at(self.now + self._cluster.found_seconds, self._find, number)

    def _find(self, number: int) -> None:
        given_up = self._dispatch.leave(number)
        assert not given_up, f"lines were lost {MOST_LOSSES} times: failures are that frequent"
        self._at(self.now + self._cluster.replaced_seconds, self._join, number)

    def _end_block(self, key: tuple[int, int]) -> None:
        number, life = key
        node = self._nodes[number]
        if life != node.life:
            return
        block = self._dispatch.done(node.blocks.popleft().number)
        assert block is not None
        self.blocks += 1
        for item in block.items:
            item.done = True
            self._window.end(item.lines, 0)
        while self._order and self._order[0].done:
            self._waiting_lines -= self._order.popleft().lines
        if node.blocks:
            self._begin_block(number, node)

    def _begin_block(self, number: int, node: _Node) -> None:
        tokens = sum(item.tokens for item in node.blocks[0].items)
        self._at(self.now + tokens / node.speed, self._end_block, (number, node.life))

    def _wake(self, _: None) -> None:
        self._waking = False

    # --- What the process of the job does, as sabiyarn_edge/jobs/pipeline.py has it

    def _read(self) -> None:
        while True:
            while self._ready and self._window.admits(self._ready[0].lines, 0):
                item = self._ready.popleft()
                self._window.start(item.lines, 0)
                self._dispatch.add(item, item.lines)
            if self._exhausted or self._waiting_lines >= self._window.most_waiting:
                return
            if self._driver_free > self.now:
                if not self._waking:
                    self._waking = True
                    self._at(self._driver_free, self._wake, None)
                return
            following = next(self._items, None)
            if following is None:
                self._exhausted = True
                return
            self._driver_free = self.now + 1e-6 * self._cluster.line_us * following.lines
            self._order.append(following)
            self._ready.append(following)
            self.tokens += following.tokens
            self._waiting_lines += following.lines
            self.most_waiting = max(self.most_waiting, self._waiting_lines)

    def _assign(self) -> None:
        while (block := self._dispatch.next()) is not None:
            number = block.worker
            assert isinstance(number, int)
            node = self._nodes[number]
            if not node.up:  # which nobody knows yet
                continue
            node.blocks.append(block)
            if len(node.blocks) == 1:
                self._begin_block(number, node)


def _items(cluster: Cluster, lengths: dict[int, int]) -> Iterator[_Item]:
    """All lines, some at once, each with a length drawn from the histogram."""
    rng = np.random.default_rng(cluster.seed)
    values = np.array(list(lengths))
    shares = np.array(list(lengths.values()), np.float64)
    shares /= shares.sum()
    left = cluster.lines
    while left:
        sums = rng.multinomial(cluster.lines_each, shares, size=4096) @ values
        for tokens in sums[: -(-left // cluster.lines_each)].tolist():
            lines = min(left, cluster.lines_each)
            yield _Item(lines, round(tokens * lines / cluster.lines_each))
            left -= lines


def histogram_of(texts: Sequence[str], model: str) -> dict[int, int]:
    """How many texts have how many tokens."""
    from sabiyarn_edge import EdgeGenerator

    with EdgeGenerator.from_pretrained(model) as generator:
        found: dict[int, int] = {}
        for text in texts:
            tokens = len(generator.tokenizer.encode(text))
            found[tokens] = found.get(tokens, 0) + 1
    return found


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = Cluster(nodes=1000, lines=10**9)
    parser.add_argument("--nodes", type=count, default=default.nodes)
    parser.add_argument("--lines", type=count, default=default.lines)
    parser.add_argument(
        "--tokens-per-second", type=float, default=default.tokens_per_second, help="of a node"
    )
    parser.add_argument("--spread", type=float, default=default.spread, help="of the nodes' speeds (0.2)")
    parser.add_argument(
        "--failures", type=float, default=default.failures_per_day, help="of each node in a day (1)"
    )
    parser.add_argument(
        "--found", type=float, default=default.found_seconds, help="s until one is found (30)"
    )
    parser.add_argument(
        "--replaced", type=float, default=default.replaced_seconds, help="s until another stands in (120)"
    )
    parser.add_argument(
        "--line-us", type=float, default=default.line_us, help="us of the job for a line (30)"
    )
    parser.add_argument(
        "--texts", type=Path, metavar="FILE", help="lines whose lengths are drawn (the UDHR's)"
    )
    parser.add_argument("--model", default="nano", help="whose tokenizer counts them")
    parser.add_argument(
        "--variants", action="store_true", help="run it again with one thing changed, and another"
    )
    parser.add_argument("--seed", type=int, default=default.seed)
    parser.add_argument("--out", type=out_file, help="write the result as JSON to this file too")
    args = parser.parse_args()
    cluster = Cluster(
        nodes=args.nodes,
        lines=args.lines,
        tokens_per_second=args.tokens_per_second,
        spread=args.spread,
        failures_per_day=args.failures,
        found_seconds=args.found,
        replaced_seconds=args.replaced,
        line_us=args.line_us,
        seed=args.seed,
    )
    lengths = UDHR_LINES
    if args.texts is not None:
        texts = [line for line in args.texts.read_text(encoding="utf-8").splitlines() if line.strip()]
        lengths = histogram_of(texts, args.model)
    if args.variants:
        found: dict[str, Any] = {
            "variants": {
                name: Simulation(replace(cluster, **changes), lengths).run()  # type: ignore[arg-type]
                for name, changes in VARIANTS.items()
            }
        }
    else:
        found = Simulation(cluster, lengths).run()
    put_out(
        {
            "benchmark": "cluster",
            "cluster": asdict(cluster),
            "lengths": "UDHR" if args.texts is None else args.texts.name,
            **found,
        },
        args.out,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
