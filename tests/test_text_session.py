"""Sessions: texts that grow, are forked and cut; exact whatever the KV cache still holds, and never computed twice."""

from __future__ import annotations

import copy
import gc
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from sabiyarn_edge import EdgeGenerator, Session
from sabiyarn_edge.errors import InvalidInputError
from tests.schedules import LENGTHS, schedule_settings

SYSTEM = [3 * i % 90 for i in range(40)]


@pytest.fixture
def generator(text_model: Path) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(text_model, num_threads=1)


def test_turns_are_computed_once(generator: EdgeGenerator, forgetful: EdgeGenerator) -> None:
    session = generator.session(SYSTEM)
    whole, computed = list(SYSTEM), []
    for turn in ([], [40, 41], [50], "èdè"):
        result = session.generate(turn, max_new_tokens=5)
        ids = generator.tokenizer.encode(turn) if isinstance(turn, str) else turn
        whole += ids
        expected = forgetful.generate(whole, max_new_tokens=5)
        assert result.sequences.tolist() == expected.sequences.tolist()
        whole = expected.sequences[0].tolist()
        assert session.tokens == whole
        computed.append(result.timings.prefill_tokens - len(ids))
    assert computed == [40, 1, 1, 1]  # the last generated token had not been run yet
    assert session.text == generator.tokenizer.decode(whole)


def test_a_begin_token_is_added_once(text_model: Path) -> None:
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1)
    assert generator.tokenizer is not None
    backend = generator.tokenizer.backend
    end = backend.token_to_id("|end_of_text|")
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="|end_of_text| $A", special_tokens=[("|end_of_text|", end)]
    )
    session = generator.session("ọmọ")
    session.append(" ilé")
    session.generate(" ńlá", max_new_tokens=3, suppress_tokens=[end])
    session.append(" ọjọ́")
    assert (session.tokens[0], session.tokens.count(end)) == (end, 1)
    from_ids = generator.session([1, 2])
    from_ids.append("ọmọ")
    assert end not in from_ids.tokens


def test_forks_that_take_turns_compute_only_what_is_theirs(
    generator: EdgeGenerator, forgetful: EdgeGenerator
) -> None:
    root = generator.session(SYSTEM)
    forks = [root.fork() for _ in range(3)]
    computed = []
    for turn in range(3):
        for i, fork in enumerate(forks):
            before = fork.tokens
            result = fork.generate([60 + i, turn], max_new_tokens=4)
            expected = forgetful.generate([*before, 60 + i, turn], max_new_tokens=4)
            assert result.sequences.tolist() == expected.sequences.tolist()
            computed.append(result.timings.prefill_tokens)
    # The first answers the system prompt too; later turns also run the newest token of the turn before.
    assert computed == [42, 2, 2, *[3] * 6]
    assert root.tokens == SYSTEM


def test_what_forks_share_is_held_once(generator: EdgeGenerator) -> None:
    root = generator.session(SYSTEM[:1] * 64)  # a whole block
    forks = [root.fork() for _ in range(4)]
    for i, fork in enumerate(forks):
        fork.generate([i, 7], max_new_tokens=2)
    per_token = generator.memory_usage()["kv_bytes_per_position"]
    # The last one is in the KV cache; of the three before, the shared block and 3 tokens each.
    assert generator.memory_usage()["prefix_cache"] == (64 + 3 * 3) * per_token
    forks.clear()
    del fork
    gc.collect()
    generator.generate([1], max_new_tokens=1)
    assert generator.memory_usage()["prefix_cache"] == 64 * per_token  # the root's
    assert root.generate(max_new_tokens=1).timings.reused_tokens == 63
    del root
    generator.generate([1], max_new_tokens=1)
    assert generator.memory_usage()["prefix_cache"] == 0


def test_several_answers_from_one_text_leave_it_as_it_was(generator: EdgeGenerator) -> None:
    session = generator.session(SYSTEM)
    options: dict[str, Any] = {"do_sample": True, "num_return_sequences": 3, "seed": 1, "max_new_tokens": 4}
    result = session.generate([5], **options)
    assert session.tokens == [*SYSTEM, 5]
    session.append(result.generated[2])
    assert session.tokens == result.sequences[2].tolist()
    again = session.generate(max_new_tokens=2)
    assert again.timings.reused_tokens in (
        41,
        42,
    )  # SYSTEM and 5; its row may have run on with the same token


def test_a_text_is_cut_back(generator: EdgeGenerator, forgetful: EdgeGenerator) -> None:
    session = generator.session(SYSTEM)
    session.generate(max_new_tokens=10)
    session.truncate(45)
    result = session.generate([8], max_new_tokens=6)
    assert (result.timings.reused_tokens, result.timings.prefill_tokens) == (45, 1)
    expected = forgetful.generate([*result.sequences[0, :45].tolist(), 8], max_new_tokens=6)
    assert result.sequences.tolist() == expected.sequences.tolist()
    for wrong in (-1, 53, True, 2.5):
        with pytest.raises(InvalidInputError, match=r"num_tokens is .*, but must be an integer from 0 to 52"):
            session.truncate(wrong)


def test_streams_belong_to_the_text(generator: EdgeGenerator) -> None:
    expected = generator.generate(SYSTEM, max_new_tokens=8).generated[0]
    session = generator.session(SYSTEM)
    assert [token.token_id for token in session.stream(max_new_tokens=8)] == expected
    assert session.tokens == SYSTEM + expected
    session.truncate(40)
    with session.stream(max_new_tokens=8) as stream:
        for _ in range(3):
            next(stream)
    assert session.tokens == SYSTEM + expected[:3]
    assert session.generate(max_new_tokens=5).timings.prefill_tokens == 1


@pytest.mark.parametrize(
    "go_on",
    [
        lambda session: session.generate(max_new_tokens=2).generated[0],
        lambda session: [token.token_id for token in session.stream(max_new_tokens=2)],
        lambda session: session.append([9]) or [9],
        lambda session: session.truncate(41) or [],
    ],
    ids=["generate", "stream", "append", "truncate"],
)
def test_an_open_stream_ends_when_the_session_goes_on(generator: EdgeGenerator, go_on: Any) -> None:
    expected = generator.generate(SYSTEM, max_new_tokens=8).generated[0]
    session = generator.session(SYSTEM[:-2])
    stream = session.stream(SYSTEM[-2:], max_new_tokens=8)
    for _ in range(3):
        next(stream)
    added = go_on(session)
    kept = SYSTEM + expected[:3]
    for _ in range(2):
        with pytest.raises(InvalidInputError, match="its session went on with another turn"):
            next(stream)
    assert stream.result is None
    assert session.tokens == (kept + added if added else kept[:41])
    with generator.session(SYSTEM).stream(max_new_tokens=8) as stream:
        read = [next(stream).token_id for _ in range(8)]
    assert read == expected


@pytest.mark.parametrize("duplicate", [copy.copy, lambda session: pickle.loads(pickle.dumps(session))])
def test_a_copy_has_the_text_and_leaves_the_stream(
    generator: EdgeGenerator, text_model: Path, duplicate: Any
) -> None:
    with EdgeGenerator.from_pretrained(text_model, num_threads=1) as owner:
        session = owner.session(SYSTEM)
        stream = session.stream(max_new_tokens=8)
        next(stream)
        again = duplicate(session)
        assert again.tokens == session.tokens
        again.truncate(2)
        again.generate(max_new_tokens=2)
        assert [token.token_id for token in stream] == generator.generate(SYSTEM, max_new_tokens=8).generated[
            0
        ][1:]
        assert len(session.tokens) == len(SYSTEM) + 8


def test_a_stream_that_was_read_to_its_last_token_ends_as_ever(generator: EdgeGenerator) -> None:
    session = generator.session(SYSTEM)
    stream = session.stream(max_new_tokens=3)
    read = [next(stream).token_id for _ in range(3)]
    stream._generation.wait()
    session.append([9])
    assert next(stream, None) is None
    assert stream.result is not None
    assert stream.result.generated == [read]


def test_a_call_that_fails_leaves_the_text(generator: EdgeGenerator) -> None:
    session = generator.session(SYSTEM)
    with pytest.raises(InvalidInputError, match="positions"):
        session.generate([1, 2], max_new_tokens=90)
    with pytest.raises(InvalidInputError, match="positions"):
        next(session.stream([1, 2], max_new_tokens=90))
    with pytest.raises(InvalidInputError, match="token id 999"):
        session.append([999])
    with pytest.raises(InvalidInputError, match="one string or one list of ids at a time"):
        session.append([[1], [2]])
    with pytest.raises(InvalidInputError, match="the prompt is empty"):
        generator.session().generate()
    assert session.tokens == SYSTEM


def test_clearing_and_freeing_cost_time_only(generator: EdgeGenerator) -> None:
    expected = generator.session(SYSTEM).generate(max_new_tokens=10).sequences.tolist()
    a, b = generator.session(SYSTEM), generator.session([1, 2])
    a.generate(max_new_tokens=5)
    b.generate(max_new_tokens=5)
    assert generator.memory_usage()["prefix_cache"] > 0
    generator.free_kv_cache()
    assert generator.memory_usage()["prefix_cache"] == generator.memory_usage()["kv_cache"] == 0
    result = a.generate(max_new_tokens=5)
    assert (result.timings.reused_tokens, result.sequences.tolist()) == (0, expected)


def test_a_pool_keeps_heads_of_prompts(text_model: Path, forgetful: EdgeGenerator) -> None:
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1, prefix_cache_mb=1)
    heads = [[i + 1] * 30 for i in range(4)]
    for turn in range(3):
        for head in heads:
            prompt = [*head, 50 + turn]
            result = generator.generate(prompt, max_new_tokens=3)
            expected = forgetful.generate(prompt, max_new_tokens=3)
            assert result.sequences.tolist() == expected.sequences.tolist()
            assert result.timings.reused_tokens == (30 if turn else 0)
    batch = [[*head, 9] for head in heads]  # each row from the pool
    result = generator.generate(batch, max_new_tokens=3)
    assert result.sequences.tolist() == forgetful.generate(batch, max_new_tokens=3).sequences.tolist()
    assert (result.timings.prefill_tokens, result.timings.reused_tokens) == (4, 120)
    used = generator.memory_usage()
    assert 0 < used["prefix_cache"] <= 2**20
    for wrong in (-1, 1.5, True):
        with pytest.raises(InvalidInputError, match="prefix_cache_mb is"):
            EdgeGenerator.from_pretrained(text_model, prefix_cache_mb=wrong)
        with pytest.raises(InvalidInputError, match="prefix_cache_mb is"):
            EdgeGenerator.plan(text_model, prefix_cache_mb=wrong)


class Conversations(RuleBasedStateMachine):
    """Sessions in any order; the oracle computes each text from its first token."""

    generator: EdgeGenerator
    oracle: EdgeGenerator
    options: tuple[dict[str, Any], ...] = (
        {},
        {"num_beams": 2},
        {"prompt_lookup_num_tokens": 3},
        {"do_sample": True, "num_return_sequences": 2, "seed": 3},
    )

    @initialize(beginning=st.lists(st.integers(0, 9), min_size=1, max_size=30))
    def start(self, beginning: list[int]) -> None:
        self.sessions: list[Session] = [self.generator.session(beginning)]

    @rule(data=st.data(), turn=st.lists(st.integers(0, 9), max_size=6), new=st.integers(1, 12))
    def generate(self, data: st.DataObject, turn: list[int], new: int) -> None:
        session = self.draw(data)
        prompt = [*session.tokens, *turn]
        if not prompt:
            return
        options = {"max_new_tokens": new, **data.draw(st.sampled_from(self.options), "options")}
        expected = self.oracle.generate(prompt, **options)
        assert session.generate(turn, **options).sequences.tolist() == expected.sequences.tolist()

    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        self.sessions.append(self.draw(data).fork())

    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        if len(self.sessions) > 1:
            self.sessions.remove(self.draw(data))

    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        session = self.draw(data)
        session.truncate(data.draw(st.integers(0, len(session.tokens)), "length"))

    @rule(prompts=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=30), min_size=1, max_size=3))
    def other_texts(self, prompts: list[list[int]]) -> None:
        expected = self.oracle.generate(prompts, max_new_tokens=3)
        found = self.generator.generate(prompts, max_new_tokens=3)
        np.testing.assert_array_equal(found.sequences, expected.sequences)

    def draw(self, data: st.DataObject) -> Session:
        return self.sessions[data.draw(st.integers(0, len(self.sessions) - 1), "session")]


@pytest.mark.parametrize(
    "loading",
    [
        {"overflow": "slide", "keep_tokens": 4},
        {"overflow": "slide", "kv_window": 24, "num_sink_tokens": 2},
        {"overflow": "slide", "prefix_cache_mb": 1},
    ],
    ids=["slide", "window", "pool"],
)
@pytest.mark.parametrize("longer", LENGTHS)
def test_sessions_in_any_order_are_exact(text_model: Path, loading: dict[str, Any], longer: int) -> None:
    class Machine(Conversations):
        generator = EdgeGenerator.from_pretrained(text_model, num_threads=1, **loading)
        oracle = EdgeGenerator.from_pretrained(text_model, num_threads=1, reuse_prefix=False, **loading)

    run_state_machine_as_test(Machine, settings=schedule_settings(longer, schedules=12, steps=15))
