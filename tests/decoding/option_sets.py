"""Random sets of decoding options for small vocabularies, where ends, bans and forced tokens really occur."""

from __future__ import annotations

import random
from typing import Any, NamedTuple


class Case(NamedTuple):
    vocab_size: int
    options: dict[
        str, Any
    ]  # names and values that transformers' GenerationConfig and our DecodeOptions share
    prompts: list[list[int]]  # of one length: transformers would pad others


def random_case(seed: int, *, beams: bool) -> Case:
    rng = random.Random(seed)
    vocab_size = rng.choice([6, 9, 17, 30])

    def some_ids(least: int, most: int) -> list[int]:
        return rng.sample(range(vocab_size), rng.randint(least, most))

    options: dict[str, Any] = {"max_new_tokens": rng.randint(1, 14)}
    if beams:
        num_beams = rng.randint(2, 6)
        options |= {
            "num_beams": num_beams,
            "num_return_sequences": rng.randint(1, num_beams),
            "early_stopping": rng.choice([True, False, "never"]),
            "length_penalty": rng.choice([-2.0, -0.5, 0.0, 0.7, 1.0, 2.5]),
        }
    if num_ends := rng.choice([0, 1, 1, 1, 2, 3]):
        options["eos_token_id"] = some_ids(num_ends, num_ends)

    choices: list[tuple[float, str, Any]] = [
        (0.3, "repetition_penalty", rng.choice([0.8, 1.2, 2.0])),
        (0.2, "no_repeat_ngram_size", rng.choice([2, 3])),
        (0.2, "bad_words_ids", [some_ids(1, 1), some_ids(2, 3)]),
        (0.2, "min_new_tokens", rng.randint(1, options["max_new_tokens"])),
        (0.2, "min_length", rng.randint(1, 8)),
        (0.15, "suppress_tokens", some_ids(1, 2)),
        (0.15, "begin_suppress_tokens", some_ids(1, 2)),
        (0.15, "forced_eos_token_id", rng.randrange(vocab_size)),
        (0.15, "forced_bos_token_id", rng.randrange(vocab_size)),
        (0.15, "renormalize_logits", True),
        (
            0.2,
            "sequence_bias",
            [
                [[rng.randrange(1, vocab_size)], rng.choice([-1.5, 2.0])],
                [[rng.randrange(1, vocab_size), rng.randrange(1, vocab_size)], 1.25],
            ],
        ),
    ]
    options |= {name: value for chance, name, value in choices if rng.random() < chance}
    if "no_repeat_ngram_size" in options:
        # Bans can remove every token of a row. Renormalizing such a row gives NaN in transformers.
        options.pop("renormalize_logits", None)
    prompt_length = rng.choice([1, 1, 2, 4])
    prompts = [[rng.randrange(vocab_size) for _ in range(prompt_length)] for _ in range(rng.randint(1, 3))]
    return Case(vocab_size, options, prompts)
