"""Times one step of choosing a token under a constraint, on one core, beside the same step without one.

Greedy, over random logits of 52050 entries; the model is not run. A step finds the tokens that may come next, takes the
best of them, and follows it. Texts that end are begun again. The tokenizer has every byte and seeded made-up words.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from statistics import median, quantiles
from typing import Any

import numpy as np
import tokenizers

from benchmarks.arguments import count, out_file
from benchmarks.output import put_out
from sabiyarn_edge._core import DecodeOptions, DecodeState
from sabiyarn_edge.bench.machine import describe_machine
from sabiyarn_edge.constraints.compiler import ConstraintCompiler
from sabiyarn_edge.constraints.constraint import Constraint
from sabiyarn_edge.constraints.rows import ConstrainedRows
from sabiyarn_edge.options.generation_config import GenerationConfig
from sabiyarn_edge.text.tokenizer import Tokenizer

VOCAB_SIZE = 52050
LONGEST = 200  # tokens of a text
ADDRESS = {
    "type": "object",
    "properties": {"street": {"type": "string"}, "code": {"type": "string", "pattern": "^[0-9]{5}$"}},
    "required": ["street", "code"],
    "additionalProperties": False,
}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "languages": {"type": "array", "items": {"enum": ["eng", "yor", "hau", "ibo", "pcm"]}, "maxItems": 3},
        "address": ADDRESS,
    },
    "required": ["name", "age", "languages", "address"],
    "additionalProperties": False,
}
CONSTRAINTS: dict[str, dict[str, Any]] = {
    "choices": {
        "choices": ["business", "entertainment", "health", "politics", "religion", "sports", "technology"]
    },
    "regex": {"regex": r"[a-z]+(\.[a-z]+)*@[a-z]+\.(com|org|ng)"},
    "json_schema": {"json_schema": PERSON},
    "json_object": {"json_object": True},
    "grammar": {"grammar": 'start: sum\nsum: NUMBER (("+" | "-") NUMBER)*\nNUMBER: /[1-9][0-9]*/'},
}


def made_up_tokenizer() -> Tokenizer:
    """Byte-level, VOCAB_SIZE entries: an end token, every byte, and words of one to four syllables."""
    rng = random.Random(0)
    byte_level = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    names = dict.fromkeys(["<end>", *sorted(byte_level.alphabet())])
    first = ["", "b", "d", "f", "g", "gb", "h", "j", "k", "l", "m", "n", "p", "r", "s", "sh", "t", "w", "y"]
    while len(names) < VOCAB_SIZE:
        syllables = [rng.choice(first) + rng.choice("aeiouẹọàí") for _ in range(rng.randint(1, 4))]
        [(name, _)] = byte_level.pre_tokenize_str(rng.choice(["", " "]) + "".join(syllables))
        names[name] = None
    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab={name: i for i, name in enumerate(names)}, merges=[])
    )
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens(["<end>"])
    return Tokenizer(backend)


class Greedy:
    """Texts of one constraint, or of none, one after another."""

    def __init__(self, constraint: Constraint | None) -> None:
        self.constraint = constraint
        self._begin()

    def _begin(self) -> None:
        self.state = DecodeState(DecodeOptions(max_new_tokens=LONGEST, eos_token_id=0), VOCAB_SIZE, [[1]])
        self.hooks = {} if self.constraint is None else ConstrainedRows(self.constraint, [0], ()).hooks({})
        self.at = 0

    def step(self, logits: np.ndarray) -> float:
        """Choose one token; returns seconds."""
        if self.state.finished:
            self._begin()
        started = time.perf_counter()
        if self.hooks:
            self.hooks["before_scores"](self.state)
            self.state.process(logits)
            self.state.propose(logits)
            self.state.commit(self.hooks["after_choice"](self.state))
        else:
            self.state.advance(logits)
        return time.perf_counter() - started


def measure(constraints: dict[str, Constraint | None], rounds: int) -> dict[str, dict[str, float]]:
    """Return the median and the 99th percentile of each, in microseconds. They take turns, at the same logits."""
    rng = np.random.default_rng(1)
    texts = {name: Greedy(constraint) for name, constraint in constraints.items()}
    times: dict[str, list[float]] = {name: [] for name in constraints}
    for _ in range(rounds):
        logits = (3 * rng.standard_normal((1, VOCAB_SIZE))).astype(np.float32)
        for name, text in texts.items():
            times[name].append(1e6 * text.step(logits.copy()))
    return {
        name: {"median": round(median(values), 1), "p99": round(quantiles(values, n=100)[98], 1)}
        for name, values in times.items()
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=count, default=1000, help="steps of each (default 1000)")
    parser.add_argument("--out", type=out_file, help="write the result as JSON")
    args = parser.parse_args()
    compiler = ConstraintCompiler(made_up_tokenizer(), VOCAB_SIZE)
    compiled: dict[str, Constraint | None] = {"none": None}
    first: dict[str, float] = {}
    for name, options in CONSTRAINTS.items():
        started = time.perf_counter()
        compiled[name] = compiler.constraint_of(GenerationConfig(**options, eos_token_id=0))
        first[name] = round(1e3 * (time.perf_counter() - started), 1)
    result = {
        "benchmark": "constraints",
        "machine": describe_machine(("sabiyarn-edge", "llguidance", "numpy", "tokenizers")),
        "vocab_size": VOCAB_SIZE,
        "step_us": measure(compiled, args.rounds),
        "first_use_ms": first,
    }
    put_out(result, args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
