"""Times one step of choosing tokens at SabiYarn's vocabulary (52050), on one core, beside NumPy and transformers.

    greedy    the best token of one row
    sample    repetition penalty over 512 ids, top-k 50, top-p 0.9, one draw
    beams     one step of 5-beam search: log-softmax of 5 rows, the 10 best of 5 * 52050 candidates

All three engines see the same logits, interleaved; the model is not run. transformers' part is its own
processors and the torch calls that its generate() makes with them, without its bookkeeping.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from statistics import median

import numpy as np
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from benchmarks.arguments import count, out_file
from benchmarks.output import put_out
from sabiyarn_edge._core import DecodeOptions, DecodeState
from sabiyarn_edge.bench.machine import describe_machine

VOCAB_SIZE = 52050
PROMPT = list(range(0, 512 * 7, 7))  # 512 distinct ids
BEAMS = 5


class Case:
    """One kind of step; each engine takes logits [rows, VOCAB_SIZE] and chooses."""

    def __init__(self, rows: int, engines: dict[str, Callable[[np.ndarray], object]]) -> None:
        self.rows, self.engines = rows, engines


def greedy() -> Case:
    state = DecodeState(DecodeOptions(max_new_tokens=10**6), VOCAB_SIZE, [[1]])
    return Case(
        1,
        {
            "sabiyarn_edge": state.advance,
            "numpy": lambda logits: logits.argmax(axis=1),
            "transformers": lambda logits: torch.argmax(torch.from_numpy(logits), dim=-1),
        },
    )


def sample() -> Case:
    options = DecodeOptions(
        max_new_tokens=10**6, do_sample=True, top_k=50, top_p=0.9, repetition_penalty=1.2, penalty_window=512
    )
    state = DecodeState(options, VOCAB_SIZE, [PROMPT])
    processors = LogitsProcessorList(
        [RepetitionPenaltyLogitsProcessor(1.2), TopKLogitsWarper(50), TopPLogitsWarper(0.9)]
    )
    ids, torch_ids = np.array(PROMPT), torch.tensor([PROMPT])
    rng = np.random.default_rng(0)

    def with_numpy(logits: np.ndarray) -> object:
        row = logits[0]
        row[ids] = np.where(row[ids] < 0, row[ids] * 1.2, row[ids] / 1.2)
        best = np.argpartition(row, -50)[-50:]
        best = best[np.argsort(-row[best])]
        p = np.exp(row[best] - row[best[0]])
        p /= p.sum()
        kept = np.searchsorted(np.cumsum(p), 0.9) + 1
        return best[rng.choice(kept, p=p[:kept] / p[:kept].sum())]

    def with_transformers(logits: np.ndarray) -> object:
        scores = processors(torch_ids, torch.from_numpy(logits))
        return torch.multinomial(torch.softmax(scores, dim=-1), 1)

    return Case(1, {"sabiyarn_edge": state.advance, "numpy": with_numpy, "transformers": with_transformers})


def beams() -> Case:
    state = DecodeState(DecodeOptions(max_new_tokens=10**5, num_beams=BEAMS), VOCAB_SIZE, [[1]])
    state.advance(np.random.default_rng(1).standard_normal((1, VOCAB_SIZE)).astype(np.float32))
    running = np.zeros((BEAMS, 1), np.float32)

    def with_numpy(logits: np.ndarray) -> object:
        shifted = logits - logits.max(axis=1, keepdims=True)
        scores = (shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True)) + running).ravel()
        best = np.argpartition(scores, -2 * BEAMS)[-2 * BEAMS :]
        return best[np.argsort(-scores[best])]

    def with_transformers(logits: np.ndarray) -> object:
        scores = torch.log_softmax(torch.from_numpy(logits), dim=-1) + torch.from_numpy(running)
        return torch.topk(scores.view(1, -1), 2 * BEAMS)

    return Case(
        BEAMS, {"sabiyarn_edge": state.advance, "numpy": with_numpy, "transformers": with_transformers}
    )


def measure(case: Case, rounds: int) -> dict[str, float]:
    """Return the median microseconds of each engine. Logits look like a language model's: most low, few high."""
    rng = np.random.default_rng(2)
    times: dict[str, list[float]] = {name: [] for name in case.engines}
    for _ in range(rounds):
        logits = (3 * rng.standard_normal((case.rows, VOCAB_SIZE))).astype(np.float32)
        for name, step in case.engines.items():
            own = logits.copy()
            started = time.perf_counter()
            step(own)
            times[name].append(1e6 * (time.perf_counter() - started))
    return {name: median(values) for name, values in times.items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--rounds", type=count, default=300, help="steps of which the median is taken (default 300)"
    )
    parser.add_argument("--out", type=out_file, help="write the result as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "benchmark": "selection",
        "machine": describe_machine(("sabiyarn-edge", "numpy", "torch", "transformers")),
        "vocab_size": VOCAB_SIZE,
        "unit": "us per step, median",
    }
    result |= {case.__name__: measure(case(), args.rounds) for case in (greedy, sample, beams)}
    put_out(result, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
