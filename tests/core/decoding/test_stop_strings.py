"""Stop strings on token bytes against a twin that joins everything and looks."""

from __future__ import annotations

import random

import numpy as np
import pytest

from sabiyarn_edge import _core, _core_testing


def completes_twin(stop_strings, tokens, ids, token):
    before, newest = b"".join(tokens[i] for i in ids), tokens[token]
    text = before + newest
    ends = (
        start + len(stop)
        for stop in stop_strings
        for start in range(len(text))
        if text.startswith(stop, start)
    )
    return any(end > len(before) for end in ends)


def test_random_strings_of_two_letters():
    rng = random.Random(3)
    tokens = [b"", b"a", b"b", b"ab", b"ba", b"aab", b"bbb", b"abab"]
    table = _core.TokenBytes(tokens)
    hits = 0
    for _ in range(4000):
        stops = [bytes(rng.choices(b"ab", k=rng.randint(1, 6))) for _ in range(rng.randint(1, 3))]
        ids = rng.choices(range(len(tokens)), k=rng.randint(0, 6))
        token = rng.randrange(len(tokens))
        expected = completes_twin(stops, tokens, ids, token)
        assert _core_testing.completes_stop_string(stops, table, ids, token) == expected, (stops, ids, token)
        hits += expected
    assert 500 < hits < 3500


@pytest.mark.parametrize(
    ("pieces", "stops"),
    [
        (["st", "op"], True),
        (["stop"], True),
        (["las", "topper"], True),
        (["s", "to", "pped"], True),
        (["xstopx"], True),
        (["stop", "at"], False),
        (["st", "opera", "tion"], False),
        (["st", "", "op"], True),
        (["stop", ""], False),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_the_string_must_overlap_the_newest_token(pieces, stops):
    """The examples of StopStringCriteria in transformers, and tokens without bytes."""
    table = _core.TokenBytes([piece.encode() for piece in pieces])
    *ids, token = range(len(pieces))
    assert _core_testing.completes_stop_string([b"stop"], table, ids, token) is stops


def test_a_character_may_be_split_between_tokens():
    first, second = "ọ".encode()[:1], "ọ".encode()[1:]
    assert _core_testing.completes_stop_string(["ọ".encode()], _core.TokenBytes([first, second]), [0], 1)


def test_ids_beyond_the_table_have_no_bytes():
    table = _core.TokenBytes([b"a", b"b"])
    assert len(table) == 2
    assert table[1] == b"b"
    assert not _core_testing.completes_stop_string([b"ab"], table, [0], 7)
    assert _core_testing.completes_stop_string([b"ab"], table, [0, 7], 1)


def test_a_run_ends_with_the_string_that_began_in_the_prompt():
    options = _core.DecodeOptions(
        max_new_tokens=9, stop_strings=[b"bc"], token_bytes=_core.TokenBytes([b"a", b"b", b"c"])
    )
    state = _core.DecodeState(options, 3, [[0, 1], [0, 0]])
    logits = np.array([[0, 0, 1], [0, 0, 1]], np.float32)
    state.advance(logits)
    assert state.finish_reasons() == ["stop", ""]
    assert state.last_tokens() == [(0, 2, "stop"), (1, 2, "")]


def test_stop_strings_need_the_bytes_and_may_not_be_empty():
    with pytest.raises(ValueError, match="stop_strings needs token_bytes"):
        _core.DecodeState(_core.DecodeOptions(max_new_tokens=1, stop_strings=[b"a"]), 3, [[0]])
    options = _core.DecodeOptions(max_new_tokens=1, stop_strings=[b""], token_bytes=_core.TokenBytes([b"a"]))
    with pytest.raises(ValueError, match="empty string"):
        _core.DecodeState(options, 3, [[0]])
