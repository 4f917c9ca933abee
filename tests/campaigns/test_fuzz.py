"""Findings of fuzzing stay fixed, and a few damaged files of every kind. The long runs: tests.campaigns.fuzz.

The server and the operators, which need more packages, are in test_fuzz_inputs.py.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sabiyarn_edge import _core, _core_testing
from tests.campaigns.fuzz.readers import READERS
from tests.campaigns.fuzz.target import Target, outcome
from tests.core.selection import twins_scores as twins

ENDLESS = b"[" * 100_000  # nested too deeply for a parser that calls itself
INFINITE = b"1e999"  # a float, and int(inf) is no ValueError
INFINITY, LARGEST = np.float32(np.inf), np.finfo(np.float32).max


# Damage makes options that are unknown or change nothing.
pytestmark = pytest.mark.filterwarnings("ignore::sabiyarn_edge.options.generation_config.OptionWarning")


@pytest.fixture(scope="module", params=READERS)
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Target:
    return READERS[request.param](tmp_path_factory.mktemp(request.param))


def test_a_whole_file_is_read(target: Target) -> None:
    assert outcome(target, target.whole()) == "read"


def test_damage_gives_documented_errors(target: Target) -> None:
    for run in range(40):
        found = outcome(target, target.make(random.Random(f"replay {run}")))
        assert not found.startswith("FINDING"), (run, found)


def with_header(magic: bytes, header: bytes, *, length: int | None = None) -> bytes:
    return magic + struct.pack("<I", len(header) if length is None else length) + header + bytes(4096)


def weights_header(**changes: Any) -> bytes:
    fields = {"format_version": 1, "weights_hash": "0", "inline_hash": "0", "tensors": {}, **changes}
    return json.dumps(fields).encode()


TENSOR = {"dtype": "uint8", "shape": [1], "offset": 0, "nbytes": 1}
FOUND = {
    "session": [
        with_header(b"SYEDKV01", ENDLESS),
        with_header(b"SYEDKV01", b'{"format_version": %s}' % INFINITE),
    ],
    "weights_header": [
        with_header(b"SYEDGE01", b"{}", length=2**32 - 1),  # 4 GiB were taken before the file's end was seen
        with_header(b"SYEDGE01", ENDLESS),
        with_header(
            b"SYEDGE01", weights_header().replace(b'"format_version": 1', b'"format_version": ' + INFINITE)
        ),
        with_header(b"SYEDGE01", weights_header(tensors={"a": {**TENSOR, "offset": float("inf")}})),
        with_header(b"SYEDGE01", weights_header(tensors={"a": {**TENSOR, "offset": -9}})),
        with_header(b"SYEDGE01", weights_header(inline_hash="\ud800")),
    ],
    "generation_config": [
        ENDLESS,
        *(
            json.dumps({"do_sample": True, **options}).encode()
            for options in (
                {"top_k": 2**70},
                {"max_new_tokens": 2**63, "top_k": 2**31},
                {"min_length": 2**64},
                {"eos_token_id": 2**31},
                {"suppress_tokens": [2**40]},
                {"pad_token_id": 2**70},
                {"num_return_sequences": 2**31 - 1},
            )
        ),
        json.dumps({"prompt_lookup_num_tokens": 2**31 - 1}).encode(),
    ],
    "graph_nodes": [b"\x08" + b"\xff" * 200_000],  # one number, taken in for minutes
}


@pytest.mark.parametrize(("name", "content"), [(n, c) for n, all_found in FOUND.items() for c in all_found])
def test_what_was_found_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    found = outcome(READERS[name](tmp_path), content)
    assert found.startswith("refused"), found


@pytest.mark.parametrize("merge", [["a", "»"], "a »", ["a", "b"]])
def test_a_panic_of_the_tokenizers_library_is_a_damaged_file(merge: list[str] | str, tmp_path: Path) -> None:
    """A merge whose second token is shorter than the prefix that is cut off it, or loses half a letter."""
    target = READERS["tokenizer"](tmp_path)
    values = json.loads(target.whole())
    second = merge[-1]
    prefix = "#" if second == "»" else "##"
    model = {
        "vocab": {"a": 0, second: 1, f"a{second}": 2},
        "merges": [merge],
        "continuing_subword_prefix": prefix,
    }
    values["model"] |= model
    found = outcome(target, json.dumps(values).encode())
    assert found == "refused: ModelFolderError", found


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300])
def test_names_that_no_system_takes_are_refused(name: str, tmp_path: Path) -> None:
    config = READERS["config"](tmp_path)
    values = json.loads(config.whole())
    for place in ({"weights_file": name}, {"graph": name}):
        content = json.dumps({**values, "sabiyarn_edge": {**values["sabiyarn_edge"], **place}}).encode()
        assert outcome(config, content) == "refused: ModelFolderError"


# --- choosing tokens


def extreme_rows() -> Iterator[np.ndarray]:
    """Rows of scores that no model should give, but for NaN and +inf, which are refused."""
    odd = [
        -np.inf,
        0.0,
        -0.0,
        LARGEST,
        -LARGEST,
        1e-40,
        -1e-40,
        1.4e-45,
        1e-38,
        3e38,
        88.0,
        -104.0,
        1.0,
        -1.0,
    ]
    rng = np.random.default_rng(5)
    for size in (1, 2, 3, 16, 17, 64, 300, 700):
        for _ in range(12):
            row = rng.choice(np.array(odd, np.float32), size)
            usual = rng.random(size) < rng.choice([0.0, 0.5, 0.95])
            row[usual] = np.round(rng.normal(0, 3, int(usual.sum())) * 4) / 4
            if row.max() > -INFINITY:
                yield row


@pytest.mark.parametrize("temperature", [1e-3, 0.7, 3.0, 1e30])
def test_top_k_of_extreme_scores(temperature: float) -> None:
    with np.errstate(over="ignore", under="ignore"):
        for scores in extreme_rows():
            divided = scores / np.float32(temperature)
            if not np.isfinite(divided.max()):
                continue  # refused: overflows float32 when divided by temperature
            for k in (1, 2, 7, 299, 1000):
                found = scores.copy()
                _core_testing.filter_top_k(found, k, temperature)
                np.testing.assert_array_equal(found, twins.top_k(divided, k), f"{k} {scores.tolist()}")


@pytest.mark.parametrize("name", ["top_p", "min_p", "typical_p", "epsilon", "eta"])
def test_filters_of_extreme_scores_keep_the_best_and_only_what_was_there(name: str) -> None:
    """Where probabilities underflow, the twins in float64 tell tokens apart that float32 does not; so what must hold
    whatever the rounding: at least `keep` tokens stay (or all), unchanged; all filters but typical_p keep the best."""
    for scores in extreme_rows():
        for keep in (1, 2, 5):
            found = scores.copy()
            getattr(_core_testing, f"filter_{name}")(found, 0.3, keep)
            kept = found > -INFINITY
            assert kept.sum() >= min(keep, int((scores > -INFINITY).sum()))
            np.testing.assert_array_equal(found[kept], scores[kept])
            if name != "typical_p":
                assert kept[scores.argmax()]


def test_subnormal_quotients_tie_with_the_kth() -> None:
    """1e-3 / 3e38 is 2400 of the smallest float32's units, so scores that differ by less than 1 / 2400 meet there."""
    scores = np.array([0.99999e-3, 1.00001e-3, 1e-3, -1.0], np.float32)
    _core_testing.filter_top_k(scores, 1, 3e38)
    assert (scores > -INFINITY).tolist() == [True, True, True, False]


def test_beam_search_needs_as_many_ids_as_it_weighs() -> None:
    with pytest.raises(
        ValueError, match="vocab_size is 1, but beam search with 0 end tokens needs at least 2 ids"
    ):
        _core.DecodeState(_core.DecodeOptions(max_new_tokens=1, num_beams=2), 1, [[0]])


def test_a_run_without_end_takes_no_memory_for_all_of_it() -> None:
    _core.DecodeState(_core.DecodeOptions(max_new_tokens=2**40, num_beams=64, return_scores=True), 100, [[1]])


@pytest.mark.parametrize(
    "call",
    [
        lambda row: _core_testing.apply_repetition_penalty(row, [9], 1.2),
        lambda row: _core_testing.ban_repeated_ngrams(row, [1, 2], 0),
        lambda row: _core_testing.ban_bad_words(row, [1], [[]]),
        lambda row: _core_testing.keep_only(row, [-1]),
        lambda row: _core_testing.filter_top_k(row, 0),
        lambda row: _core_testing.filter_top_p(row, 0.5, 0),
        lambda row: _core_testing.select_top(row, 0),
    ],
)
def test_the_cores_functions_check_what_they_are_given(call: Any) -> None:
    with pytest.raises(ValueError):
        call(np.zeros(9, np.float32))
