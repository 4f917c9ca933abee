"""A short soak: threads get what each call gives alone, nothing is left behind. The long one: tests.campaigns.soak."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.system.process_memory import return_free_memory
from tests.device import EMULATED

WAIT_SECONDS = 20  # longer than anything here takes; a test that waits so long has found a deadlock


@pytest.mark.skipif(EMULATED, reason="its own memory grows with what it translates")
def test_calls_of_every_kind_in_threads_give_what_they_give_alone_and_leave_nothing_behind() -> None:
    command = [sys.executable, "-m", "tests.campaigns.soak", "nano", "--generations", "600", "--threads", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads(ended.stdout)
    assert [phase["calls"] for phase in report["phases"]] == [200, 200, 200]


def test_free_memory_can_be_returned_at_any_time() -> None:
    return_free_memory()
    return_free_memory()


@pytest.fixture(scope="module")
def generator() -> EdgeGenerator:
    return EdgeGenerator.from_pretrained("nano", num_threads=1)


def in_a_thread(work) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def test_calls_run_beside_an_open_stream(generator: EdgeGenerator) -> None:
    """Of another thread, and of the one that reads the stream; each gives what it gives alone."""
    alone = generator.generate([8, 9], max_new_tokens=2).generated
    ids = generator.generate([5, 6, 7], max_new_tokens=5, eos_token_id=None).generated[0]
    stream = generator.stream([5, 6, 7], max_new_tokens=5, eos_token_id=None)
    read = [next(stream).token_id]
    results: list[object] = []
    in_a_thread(lambda: results.append(generator.generate([8, 9], max_new_tokens=2).generated)).join(
        WAIT_SECONDS
    )
    for token in stream:
        read.append(token.token_id)
        results.append(generator.generate([8, 9], max_new_tokens=2).generated)
    assert read == ids
    assert results == [alone] * 5


def test_a_stream_that_is_dropped_frees_the_generator(generator: EdgeGenerator) -> None:
    stream = generator.stream([5, 6, 7], max_new_tokens=5)
    next(stream)
    del stream
    assert generator.generate([8, 9], max_new_tokens=2).lengths == [4]


@pytest.mark.parametrize("option", ["logits_processor", "prefix_allowed_tokens_fn", "stopping_criteria"])
def test_a_function_of_a_call_cannot_call_the_generator(generator: EdgeGenerator, option: str) -> None:
    def call_back(*_: object) -> object:
        generator.memory_usage()  # this may be asked at any time
        return generator.generate([1])

    with pytest.raises(InvalidInputError, match="cannot call the same generator"):
        generator.generate([5, 6, 7], max_new_tokens=2, **{option: call_back})
    assert generator.generate([8, 9], max_new_tokens=2).lengths == [4]
