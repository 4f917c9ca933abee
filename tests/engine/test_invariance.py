"""Logits are the same bits however a text is cut into runs, whatever else is in them, and on any number of threads.

They are compared as bytes: the order of every sum is part of the contract, so no tolerance is due.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sabiyarn_edge.engine.decoder import Decoder
from tests.engine.driving import Driver
from tests.export.models import export_tiny

SHAPE = {"n_embd": 128, "n_heads": 2, "n_layer": 2, "block_size": 400, "vocab_size": 97}
CHUNKS = [1, 3, 7, 64, 256]
NEW_TOKENS = 12


@pytest.fixture(
    scope="module",
    params=[(dtype, "float16") for dtype in ("float32", "float16", "bfloat16", "int8", "int4")]
    + [("int8", "float32"), ("int8", "int8")],
    ids="-".join,
)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    dtype, kv_cache_dtype = request.param
    return export_tiny(
        tmp_path_factory.mktemp("invariance"), SHAPE, dtype=dtype, kv_cache_dtype=kv_cache_dtype, verify=False
    ).folder


def random_ids(length: int, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, SHAPE["vocab_size"], length).tolist()


def logits(folder: Path, prompt: list[int], **options: int) -> bytes:
    """The logits of the prompt's last token and of greedy tokens behind it."""
    _, seen = Driver(Decoder(folder, **{"num_threads": 1, **options})).generate([prompt], NEW_TOKENS)
    return seen[0].tobytes()


@pytest.mark.parametrize("window", [None, 40], ids=["all", "window"])
def test_any_chunk_size_gives_the_same_bits(folder: Path, window: int | None) -> None:
    prompt = random_ids(150, seed=1)
    options = {} if window is None else {"window": window, "num_sink_tokens": 3}
    found = {chunk: logits(folder, prompt, max_prefill_chunk=chunk, **options) for chunk in CHUNKS}
    assert len(set(found.values())) == 1, sorted(found)


def test_any_number_of_threads_gives_the_same_bits(folder: Path) -> None:
    prompt = random_ids(90, seed=2)
    assert logits(folder, prompt, num_threads=1) == logits(folder, prompt, num_threads=2)


@pytest.mark.parametrize(
    "decode",
    [{}, {"do_sample": True, "num_return_sequences": 3}, {"num_beams": 3}, {"eos_token_id": [5, 11, 40]}],
    ids=["greedy", "returns", "beams", "ends"],
)
def test_steady_steps_give_the_same_bits_as_single_ones(folder: Path, decode: dict[str, Any]) -> None:
    prompts = [random_ids(length, seed=length) for length in (1, 9, 30)]
    num_rows = max(decode.get("num_return_sequences", 1), decode.get("num_beams", 1))
    options = {"decode": decode, "num_rows": num_rows}
    found = [
        Driver(Decoder(folder, num_threads=1), step_by_step=step_by_step).generate(
            prompts, NEW_TOKENS, **options
        )
        for step_by_step in (True, False)
    ]
    assert found[0][0] == found[1][0]
    assert [seen.tobytes() for seen in found[0][1]] == [seen.tobytes() for seen in found[1][1]]


def test_fifteen_other_rows_change_no_bit(folder: Path) -> None:
    prompts = [random_ids(length, seed=length) for length in range(5, 85, 5)]
    driver = Driver(Decoder(folder, num_threads=1))
    _, together = driver.generate(prompts, NEW_TOKENS)
    for prompt, seen in zip(prompts, together, strict=True):
        assert logits(folder, prompt) == seen.tobytes()


def test_a_reused_prefix_changes_no_bit(folder: Path) -> None:
    head, tail = random_ids(70, seed=3), random_ids(20, seed=4)
    driver = Driver(Decoder(folder, num_threads=1))
    driver.generate([head], NEW_TOKENS)
    reused = driver.generate([head + tail], NEW_TOKENS)[1][0]
    assert driver.rows.idle is not None
    assert reused.tobytes() == logits(folder, head + tail)


def test_a_prefix_shared_with_a_prompt_beside_changes_no_bit(folder: Path) -> None:
    head = random_ids(150, seed=5)  # of which attention reads two whole tiles of 64 once for all
    prompts = [head + random_ids(length, seed=length) for length in (4, 9, 30)]
    driver = Driver(Decoder(folder, num_threads=1))
    _, together = driver.generate(prompts, NEW_TOKENS)
    for prompt, seen in zip(prompts, together, strict=True):
        assert logits(folder, prompt) == seen.tobytes()


def test_guesses_change_no_bit(folder: Path) -> None:
    from sabiyarn_edge.engine.generation import Lookup

    prompt = random_ids(9, seed=6) * 5  # n-grams repeat, so some guesses are made, right or wrong
    driver = Driver(Decoder(folder, num_threads=1))
    _, guessed = driver.generate([prompt], NEW_TOKENS, lookup=Lookup(4, 2))
    assert guessed[0].tobytes() == logits(folder, prompt)
