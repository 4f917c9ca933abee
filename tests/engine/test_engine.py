"""Many callers at once: threads, slow readers, errors that end one call alone, and the life of the process."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sabiyarn_edge import EdgeGenerator, TokenStream
from sabiyarn_edge.calls.asynchronous import AsyncTokenStream
from sabiyarn_edge.errors import InvalidInputError

REPEATS = 20
"""A race shows only sometimes."""


@pytest.fixture
def generator(text_model: Path) -> Iterator[EdgeGenerator]:
    with EdgeGenerator.from_pretrained(text_model, num_threads=1) as generator:
        yield generator


def random_calls(generator: EdgeGenerator, count: int, seed: int) -> list[tuple[list[int], dict[str, Any]]]:
    """Prompts with options of every kind."""
    rng = np.random.default_rng(seed)
    kinds: list[dict[str, Any]] = [
        {},
        {"do_sample": True, "temperature": 2.0, "seed": 5},
        {"do_sample": True, "num_return_sequences": 3, "seed": 6},
        {"num_beams": 3, "length_penalty": 1.2},
        {"num_beams": 2, "do_sample": True, "seed": 7},
        {"prompt_lookup_num_tokens": 3},
        {"repetition_penalty": 1.4, "no_repeat_ngram_size": 2},
        {"overflow": "slide", "max_new_tokens": 60},
        {"attn_mask": lambda length: np.tri(length, dtype=bool)},
        {"logits_processor": lambda ids, scores: scores - 1.0},
    ]
    vocab_size = generator.config.gptjx.vocab_size
    calls = []
    for index in range(count):
        length = int(rng.integers(1, 20))
        options = {"max_new_tokens": int(rng.integers(1, 20)), **kinds[index % len(kinds)]}
        calls.append((rng.integers(0, vocab_size, length).tolist(), options))
    return calls


def sequences(generator: EdgeGenerator, call: tuple[list[int], dict[str, Any]]) -> list[list[int]]:
    prompt, options = call
    result = generator.generate(prompt, **options)
    return [ids[:n].tolist() for ids, n in zip(result.sequences, result.lengths, strict=True)]


def test_what_a_call_gives_does_not_depend_on_the_others(generator: EdgeGenerator) -> None:
    calls = random_calls(generator, 60, seed=1)
    alone = [sequences(generator, call) for call in calls]
    with ThreadPoolExecutor(20) as pool:
        together = list(pool.map(lambda call: sequences(generator, call), calls))
    assert together == alone


def test_a_reader_who_stops_reading_holds_up_nobody(generator: EdgeGenerator) -> None:
    expected = generator.generate([1, 2, 3], max_new_tokens=30).generated[0]
    stream = generator.stream([1, 2, 3], max_new_tokens=30)
    first = next(stream)
    for _ in range(5):  # in this thread too
        assert generator.generate([4, 5], max_new_tokens=3).lengths == [5]
    assert [first.token_id, *(token.token_id for token in stream)] == expected
    assert stream.result is not None and stream.result.generated == [expected]


def test_a_call_alone_decodes_without_the_scheduler(
    generator: EdgeGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    step = generator._engine._scheduler.step
    monkeypatch.setattr(generator._engine._scheduler, "step", lambda: (steps.append(1), step()))
    generator.generate([1, 2, 3], max_new_tokens=40)
    assert len(steps) == 2  # the prompt, and all that follows


def test_a_call_joins_others_that_decode(generator: EdgeGenerator) -> None:
    def slowly(ids: np.ndarray, scores: np.ndarray) -> np.ndarray:
        time.sleep(0.01)
        return scores

    with generator.stream([1, 2, 3], max_new_tokens=90, logits_processor=slowly) as stream:
        for _ in range(3):
            next(stream)
        generator.generate([4, 5], max_new_tokens=3)
        assert generator._engine.num_live == 1  # the stream goes on
        assert len(list(stream)) == 87


def test_a_dropped_stream_frees_its_row(generator: EdgeGenerator) -> None:
    for _ in range(REPEATS):
        stream = generator.stream([1, 2, 3], max_new_tokens=10_000, overflow="slide")
        next(stream)
        del stream
    wait_until(lambda: generator._engine.num_live == 0)
    assert generator.generate([1, 2], max_new_tokens=2).lengths == [4]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "duplicate", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deep", "pickle"]
)
def test_a_stream_has_one_reader(chat_folder: Path, duplicate: Callable[[Any], Any]) -> None:
    async def read_in_a_loop(messages: list[dict[str, str]]) -> None:
        chat = generator.achat_stream(messages, max_new_tokens=9)
        for opened, kind in (
            (generator.astream([1], max_new_tokens=9), "AsyncTokenStream"),
            (chat, "AsyncChatStream"),
        ):
            with pytest.raises(InvalidInputError, match=f"a {kind} cannot be copied"):
                duplicate(opened)
            gc.collect()  # of what was half built
            assert [token async for token in opened]  # type: ignore[attr-defined]

    with EdgeGenerator.from_pretrained(chat_folder, num_threads=1) as generator:
        messages = [{"role": "user", "content": "a"}]
        for opened, kind in (
            (generator.stream([1], max_new_tokens=9), "TokenStream"),
            (generator.session([1]).stream(max_new_tokens=9), "TokenStream"),
            (generator.chat_stream(messages, max_new_tokens=9), "ChatStream"),
        ):
            with pytest.raises(InvalidInputError, match=f"a {kind} cannot be copied"):
                duplicate(opened)
            gc.collect()
            assert list(opened)
            assert opened.result is not None
        asyncio.run(read_in_a_loop(messages))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", [TokenStream, AsyncTokenStream])
def test_a_half_built_stream_is_dropped_in_silence(kind: type) -> None:
    kind.__new__(kind)
    gc.collect()


def test_streams_side_by_side_give_what_each_gives_alone(generator: EdgeGenerator) -> None:
    prompts = [[i + 1, i + 2] for i in range(8)]
    alone = [generator.generate(prompt, max_new_tokens=15).generated[0] for prompt in prompts]
    streams = [generator.stream(prompt, max_new_tokens=15) for prompt in prompts]
    found: list[list[int]] = [[] for _ in prompts]
    for _ in range(15):
        for stream, own in zip(streams, found, strict=True):
            own.append(next(stream).token_id)
    assert found == alone


def test_an_error_in_one_call_ends_that_call_alone(generator: EdgeGenerator) -> None:
    def fail(ids: Any, scores: Any) -> Any:
        if ids.shape[1] > 4:
            raise KeyError("mine")
        return scores

    expected = generator.generate([7, 8], max_new_tokens=12).sequences.tolist()
    with ThreadPoolExecutor(4) as pool:
        good = [pool.submit(generator.generate, [7, 8], max_new_tokens=12) for _ in range(2)]
        bad = pool.submit(generator.generate, [1, 2, 3], max_new_tokens=12, logits_processor=fail)
        nothing_left = pool.submit(
            generator.generate,
            [1, 2],
            max_new_tokens=3,
            suppress_tokens=list(range(generator.config.gptjx.vocab_size)),
        )
        with pytest.raises(KeyError, match="mine"):
            bad.result()
        with pytest.raises(InvalidInputError, match="suppress_tokens leaves no token"):
            nothing_left.result()
        assert [call.result().sequences.tolist() for call in good] == [expected] * 2


def test_a_callback_cannot_call_its_own_generator(generator: EdgeGenerator) -> None:
    def call_again(ids: Any, scores: Any) -> Any:
        generator.generate([1], max_new_tokens=1)
        return scores

    with pytest.raises(InvalidInputError, match="cannot call the same generator"):
        generator.generate([1, 2], max_new_tokens=2, logits_processor=call_again)
    assert generator.generate([1, 2], max_new_tokens=2).lengths == [4]


def test_cancel_ends_all_calls_with_what_they_have(generator: EdgeGenerator) -> None:
    with ThreadPoolExecutor(3) as pool:
        calls = [
            pool.submit(generator.generate, [i + 1], max_new_tokens=100_000, overflow="slide")
            for i in range(3)
        ]
        wait_until(lambda: generator._engine.num_live == 3)
        generator.cancel()
        assert [call.result(10).finish_reasons for call in calls] == [["cancelled"]] * 3


def test_a_closed_generator_says_so(text_model: Path) -> None:
    generator = EdgeGenerator.from_pretrained(text_model)
    stream = generator.stream([1], max_new_tokens=100_000, overflow="slide")
    next(stream)
    generator.close()
    with pytest.raises(InvalidInputError, match="closed"):
        for _ in stream:
            pass
    with pytest.raises(InvalidInputError, match="closed"):
        generator.generate([1])
    with pytest.raises(InvalidInputError, match="closed"), generator:
        pytest.fail("the block must not run")


def engine_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name == "sabiyarn_edge"}


def test_a_dropped_generator_leaves_no_thread(text_model: Path) -> None:
    """And so nothing of its model; without close(), as most programs do it."""
    before = engine_threads()
    for _ in range(3):
        generator = EdgeGenerator.from_pretrained(text_model, num_threads=1)
        generator.generate([1, 2], max_new_tokens=2)
        (thread,) = engine_threads() - before
        del generator
        thread.join(10.0)
        assert not thread.is_alive()


def failing_processor(ids: object, scores: object) -> None:
    raise ZeroDivisionError


async def fail_in_a_loop(generator: EdgeGenerator) -> None:
    with contextlib.suppress(
        ZeroDivisionError
    ):  # what leaves asyncio.run() itself knows the task that knows it
        await generator.agenerate([[1, 2], [3]], logits_processor=[failing_processor])
    with contextlib.suppress(ZeroDivisionError):
        async for _ in generator.astream([1, 2], logits_processor=[failing_processor]):
            pass


@pytest.mark.parametrize(
    "fail",
    [
        lambda generator: generator.generate([1, 2], logits_processor=[failing_processor]),
        lambda generator: generator.generate([[1, 2], [3]], logits_processor=[failing_processor]),
        lambda generator: list(generator.stream([1, 2], logits_processor=[failing_processor])),
        lambda generator: list(generator.map([[1, 2], [3]], logits_processor=[failing_processor])),
        lambda generator: generator.session([1, 2]).generate(logits_processor=[failing_processor]),
        lambda generator: asyncio.run(fail_in_a_loop(generator)),
    ],
    ids=["generate", "batch", "stream", "map", "session", "asynchronous"],
)
def test_a_generator_whose_call_failed_needs_no_garbage_collection(
    text_model: Path, fail: Callable[[EdgeGenerator], object]
) -> None:
    """An error knows the frames that it went through: nothing that they know may know the error."""
    before = engine_threads()
    gc.collect()
    gc.disable()
    try:
        generator = EdgeGenerator.from_pretrained(text_model, num_threads=1)
        with contextlib.suppress(ZeroDivisionError):
            fail(generator)
        (thread,) = engine_threads() - before
        del generator
        thread.join(10.0)
        assert not thread.is_alive()
    finally:
        gc.enable()


def test_what_outlives_its_generator_goes_on(text_model: Path, tmp_path: Path) -> None:
    before = engine_threads()
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1)
    expected = generator.generate([1, 2, 3], max_new_tokens=30, do_sample=True, seed=3)
    stream = generator.stream([1, 2, 3], max_new_tokens=30, do_sample=True, seed=3)
    session = generator.session([1, 2, 3])
    del generator
    assert [token.token_id for token in stream] == expected.sequences[0, 3 : expected.lengths[0]].tolist()
    session.generate(max_new_tokens=3, seed=3)
    session.save(tmp_path / "session")
    del stream, session
    for thread in engine_threads() - before:
        thread.join(10.0)
    assert engine_threads() <= before


def test_map_keeps_the_order_and_takes_no_more_than_it_may(generator: EdgeGenerator) -> None:
    taken = 0

    def prompts() -> Iterator[list[int]]:
        nonlocal taken
        for i in range(40):
            taken += 1
            yield [i + 1] * (1 + i % 5)

    results = generator.map(prompts(), max_new_tokens=4, max_in_flight=6)
    for index, result in enumerate(results):
        assert result.sequences[0, 0] == index + 1
        assert taken <= index + 6
    assert taken == 40
    mapped = generator.map([[1], [2], "x" * 0], max_new_tokens=2)
    assert [next(mapped).lengths, next(mapped).lengths] == [[3], [3]]
    with pytest.raises(InvalidInputError, match="empty"):
        next(mapped)
    with pytest.raises(InvalidInputError, match="max_in_flight"):
        generator.map([], max_in_flight=0)


def test_prompts_of_different_callers_that_begin_alike_are_computed_once(generator: EdgeGenerator) -> None:
    head = list(range(1, 31))
    # They keep their beginning, however far they are; a text that slides drops it.
    streams = [generator.stream([*head, 40 + i], max_new_tokens=50) for i in range(3)]
    for stream in streams:
        next(stream)
    again = generator.generate([*head, 50], max_new_tokens=2)
    assert again.timings.reused_tokens == 30
    for stream in streams:
        stream.close()


def test_ids_outside_the_vocabulary_are_refused_in_options_too(generator: EdgeGenerator) -> None:
    with pytest.raises(
        InvalidInputError, match="sequence_bias holds 400, but the vocabulary has ids 0 to 319"
    ):
        generator.generate([1], sequence_bias={(400,): 1.0})


# --- rows

ENDLESS: dict[str, Any] = {"max_new_tokens": 100_000, "overflow": "slide"}


@pytest.fixture
def two_rows(text_model: Path) -> Iterator[EdgeGenerator]:
    with EdgeGenerator.from_pretrained(text_model, num_threads=1, max_batch_size=2) as generator:
        yield generator


def test_calls_wait_for_rows_and_are_served_in_their_order(two_rows: EdgeGenerator) -> None:
    streams = [two_rows.stream([1 + i], **ENDLESS) for i in range(2)]
    for stream in streams:
        next(stream)
    with ThreadPoolExecutor(2) as pool:
        beams = pool.submit(two_rows.generate, [1, 2], num_beams=2, max_new_tokens=3)
        wait_until(lambda: two_rows.num_waiting == 1)
        single = pool.submit(two_rows.embed, [[1, 2], [3, 4], [5, 6]])
        wait_until(lambda: two_rows.num_waiting == 4)
        assert two_rows.num_running == 2
        streams[0].close()
        next(streams[1])
        assert not beams.done() and not single.done()  # one free row is not enough for the first in the queue
        streams[1].close()
        assert beams.result(30).lengths == [5]
        assert single.result(30).shape == (3, two_rows.config.gptjx.n_embd)


def test_a_call_that_waits_for_rows_can_be_dropped_cancelled_or_run_out_of_time(
    two_rows: EdgeGenerator,
) -> None:
    running = two_rows.stream([1], num_beams=2, **ENDLESS)
    wait_until(lambda: two_rows.num_running == 1)
    first, dropped = two_rows.stream([2], **ENDLESS), two_rows.stream([3], **ENDLESS)
    late = two_rows.generate([4, 5], max_time=0.05)
    assert (late.finish_reasons, late.generated) == (["time"], [[]])
    dropped.close()
    assert two_rows.num_waiting == 1
    two_rows.cancel()
    assert list(first) == [] and first.result is not None and first.result.finish_reasons == ["cancelled"]
    running.close()


# --- memory


def test_calls_wait_for_memory(text_model: Path) -> None:
    """The second of two is admitted once the first has gone; alone each may run."""
    with EdgeGenerator.from_pretrained(text_model, num_threads=1, memory_limit_mb=1000) as generator:
        stream = generator.stream([1], **ENDLESS)
        next(stream)
        scheduler = generator._engine._scheduler
        (work,) = scheduler.live
        stream.close()
        scheduler._limit_bytes = work.needed_bytes * 3 // 2
        assert work.needed_bytes > 0
        first, second = (generator.stream([token], **ENDLESS) for token in (1, 2))
        next(first)
        wait_until(lambda: generator.num_waiting == 1)
        next(first)
        assert generator.num_running == 1
        first.close()
        assert next(second).token_id is not None
        second.close()


# --- asyncio


def test_asyncio_gives_what_threads_give(generator: EdgeGenerator) -> None:
    import asyncio

    prompts = [[i + 1, i + 2] for i in range(10)]
    expected = [generator.generate(prompt, max_new_tokens=9).generated[0] for prompt in prompts]

    async def read(prompt: list[int]) -> list[int]:
        return [token.token_id async for token in generator.astream(prompt, max_new_tokens=9)]

    async def run() -> tuple[list[list[int]], list[list[int]]]:
        results = await asyncio.gather(*(generator.agenerate(prompt, max_new_tokens=9) for prompt in prompts))
        streams = await asyncio.gather(*map(read, prompts))
        return [result.generated[0] for result in results], streams

    assert asyncio.run(run()) == (expected, expected)
    texts = [[1, 2, 3], [4]]
    embedded = asyncio.run(generator.aembed(texts, normalize=True))
    np.testing.assert_array_equal(embedded, generator.embed(texts, normalize=True))


def test_a_cancelled_task_frees_its_rows(generator: EdgeGenerator) -> None:
    import asyncio

    async def run() -> None:
        endless = {"max_new_tokens": 100_000, "overflow": "slide"}
        task = asyncio.create_task(generator.agenerate([1, 2], **endless))
        stream = generator.astream([3], **endless)
        await anext(stream)
        task.cancel()
        await stream.aclose()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(InvalidInputError, match="max_new_tokens"):
            await generator.agenerate([1], max_new_tokens=-1)

    asyncio.run(run())
    wait_until(lambda: generator._engine.num_live == 0)


def test_a_timeout_around_a_token_loses_none(generator: EdgeGenerator) -> None:
    import asyncio

    expected = generator.generate([1, 2], max_new_tokens=30).generated[0]

    async def run() -> tuple[list[int], int]:
        stream = generator.astream([1, 2], max_new_tokens=30)
        read, cancelled = [], 0
        while len(read) < 30:
            waiting = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            waiting.cancel()
            try:
                read.append((await waiting).token_id)
            except asyncio.CancelledError:
                cancelled += 1
        assert [token async for token in stream] == []
        assert stream.result is not None
        assert stream.result.generated == [expected]
        return read, cancelled

    read, cancelled = asyncio.run(run())
    assert read == expected
    assert cancelled > 0


def test_streams_stay_in_their_event_loop(generator: EdgeGenerator) -> None:
    import asyncio

    async def opened() -> Any:
        return generator.astream([1, 2], max_new_tokens=5)

    async def read(stream: Any) -> None:
        await anext(stream)

    with pytest.raises(InvalidInputError, match="opened in another event loop"):
        asyncio.run(read(asyncio.run(opened())))
    with pytest.raises(InvalidInputError, match="no event loop of asyncio is running"):
        generator.astream([1, 2])
    with pytest.raises(InvalidInputError, match="no event loop of asyncio is running"):
        generator.agenerate([1, 2]).send(None)


# --- the process


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=60, check=False
    )


OPEN = (
    "import os, sys, threading, time\n"
    "from sabiyarn_edge import EdgeGenerator\n"
    "generator = EdgeGenerator.from_pretrained(sys.argv[1])\n"
    "endless = dict(max_new_tokens=10**6, overflow='slide')\n"
    "def start(call):\n"
    "    threading.Thread(target=call, daemon=True).start()\n"
    "    time.sleep(0.05)\n"
)


@pytest.mark.parametrize(
    "way",
    [
        "start(lambda: generator.generate([1], **endless))",
        "stream = generator.stream([1], **endless); next(stream)",
        "start(lambda: list(generator.stream([1], **endless)))",
    ],
    ids=["daemon", "stream", "daemon-stream"],
)
def test_the_process_ends_with_its_own_status_while_it_generates(text_model: Path, way: str) -> None:
    for status in (0, 3):
        ended = run_python(f"{OPEN}{way}\nsys.exit({status})", str(text_model))
        assert (ended.returncode, ended.stdout, ended.stderr) == (status, "", "")


@pytest.mark.slow
def test_it_does_so_twenty_times(text_model: Path) -> None:
    way = "start(lambda: generator.generate([1], **endless))"
    for _ in range(REPEATS):
        started = time.monotonic()
        ended = run_python(f"{OPEN}{way}\nprint(time.monotonic()); sys.exit(5)", str(text_model))
        assert (ended.returncode, ended.stderr) == (5, "")
        assert time.monotonic() - max(started, float(ended.stdout)) < 10  # a hang, not a slow machine


CHILD = (
    "pid = os.fork()\n"
    "if pid == 0:\n"
    "    ids = generator.generate([1, 2, 3], max_new_tokens=5).sequences.tolist()\n"
    "    os._exit(0 if ids == expected else 9)\n"
    "assert os.waitpid(pid, 0)[1] == 0\n"
    "assert generator.generate([1, 2, 3], max_new_tokens=5).sequences.tolist() == expected\n"
)
can_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

EXPECTED = "expected = generator.generate([1, 2, 3], max_new_tokens=5).sequences.tolist()\n"


@can_fork
@pytest.mark.parametrize(
    "before",
    [
        EXPECTED,
        EXPECTED + "start(lambda: generator.generate([1], **endless))\n",
        "import copy\nexpected = EdgeGenerator.from_pretrained(sys.argv[1]).generate([1, 2, 3], max_new_tokens=5)"
        ".sequences.tolist()\n",
    ],
    ids=["used", "generating", "preloaded"],
)
def test_a_forked_child_generates(text_model: Path, before: str) -> None:
    ended = run_python(OPEN + before + CHILD, str(text_model))
    assert (ended.returncode, ended.stderr) == (0, "")


IN_CHILD = (
    "import asyncio, contextlib, gc\n"
    "from sabiyarn_edge.errors import InvalidInputError\n"
    "def in_child(function):\n"
    "    pid = os.fork()\n"
    "    if pid == 0:\n"
    "        code = 9\n"
    "        try:\n"
    "            code = function() or 0\n"
    "        finally:\n"
    "            os._exit(code)\n"
    "    code = os.waitpid(pid, 0)[1]\n"
    "    assert code == 0, code\n"
    "def refused(function):\n"
    "    try:\n"
    "        print(function())\n"
    "    except InvalidInputError as error:\n"
    "        assert 'this is process' in str(error) and 'anew' in str(error), error\n"
    "        return 0\n"
    "    return 8\n"
    "def closes_at_once(stream):\n"
    "    generator.generate([1, 2], max_new_tokens=3)\n"
    "    before = time.monotonic()\n"
    "    stream.close()\n"
    "    assert list(stream) == [] and time.monotonic() - before < 5\n"
)
"""Functions for what a forked child does. What it waits for in vain ends the test with run_python's time limit."""


def check_forks(code: str, model: Path) -> None:
    """Run code behind OPEN and IN_CHILD; it must end well, and say nothing."""
    ended = run_python(OPEN + IN_CHILD + code, str(model))
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")


OPENED = {
    "stream": "opened = generator.stream([1], **endless)",
    "session": "opened = generator.session([1]).stream(**endless)",
    "map": "opened = generator.map([[1], [2], [3]] * 9, max_new_tokens=60)",
    "score": "opened = generator.score([[1, 2], [2, 3], [3, 4]] * 9)",
}


@can_fork
@pytest.mark.parametrize("opened", OPENED.values(), ids=OPENED)
def test_a_forked_child_is_refused_what_its_parent_opened(text_model: Path, opened: str) -> None:
    code = (
        f"{opened}\nnext(opened)\nin_child(lambda: refused(lambda: list(opened)))\n"
        "in_child(lambda: refused(lambda: generator.generate([1], max_new_tokens=2) and list(opened)))\n"
        "next(opened); opened.close()\n"
    )
    check_forks(code, text_model)


@can_fork
def test_a_forked_child_is_refused_what_its_parent_opened_for_a_chat(chat_folder: Path) -> None:
    code = (
        "messages = [dict(role='user', content='a')]\n"
        "for opened in (generator.chat_stream(messages, max_new_tokens=60), "
        "generator.chat_session().stream('a', max_new_tokens=60)):\n"
        "    in_child(lambda: refused(lambda: list(opened)))\n"
        "    in_child(opened.close)\n"
        "    list(opened)\n"
    )
    check_forks(code, chat_folder)


@can_fork
def test_a_forked_child_closes_what_its_parent_opened(text_model: Path) -> None:
    """Also once it has an engine of its own, which knows nothing of the parent's works."""
    code = (
        "opened = generator.stream([1], **endless); next(opened)\n"
        "in_child(lambda: closes_at_once(opened))\n"
        "in_child(opened.close)\nin_child(generator.close)\n"
        "def closed():\n"
        "    generator.close()\n"
        "    with contextlib.suppress(InvalidInputError):\n"
        "        generator.generate([1], max_new_tokens=2)\n"
        "        return 7\n"
        "in_child(closed)\n"
        "unread = generator.map([[1], [2]], max_new_tokens=3)\n"  # nothing runs yet, so it is anyone's
        "in_child(lambda: len(list(unread)) != 2)\n"
        "assert len(list(unread)) == 2 and next(opened)\n"
    )
    check_forks(code, text_model)


@can_fork
def test_a_forked_child_is_refused_what_its_parent_opened_for_asyncio(text_model: Path) -> None:
    """Before, in and after the event loop."""
    code = (
        "async def read(stream):\n"
        "    return [token async for token in stream]\n"
        "def read_task(loop, task):\n"
        "    return lambda: loop.run_until_complete(task)\n"
        "async def several():\n"
        "    global opened\n"
        "    opened = generator.astream([1], **endless)\n"
        "    await anext(opened)\n"
        "    running = asyncio.ensure_future(generator.agenerate([1], **endless))\n"
        "    await asyncio.sleep(0.05)\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        try:\n"
        "            for waiting in (running, read(opened)):\n"
        "                try:\n"
        "                    await waiting\n"
        "                    os._exit(8)\n"
        "                except InvalidInputError:\n"
        "                    pass\n"
        "            os._exit(0)\n"
        "        finally:\n"
        "            os._exit(9)\n"
        "    assert os.waitpid(pid, 0)[1] == 0\n"
        "    await anext(opened)\n"
        "    running.cancel()\n"
        "asyncio.run(several())\n"
        "in_child(lambda: refused(lambda: asyncio.run(read(opened))))\n"
    )
    check_forks(code, text_model)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_generator_goes_to_another_process_as_path_and_options(text_model: Path, method: str) -> None:
    import multiprocessing

    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1, max_length=30)
    expected = generator.generate([1, 2, 3], max_new_tokens=5).sequences.tolist()
    with multiprocessing.get_context(method).Pool(1) as pool:
        assert pool.apply(generate_there, (generator, [1, 2, 3])) == expected


def generate_there(generator: EdgeGenerator, prompt: list[int]) -> list[list[int]]:
    assert generator.max_length == 30
    found: list[list[int]] = generator.generate(prompt, max_new_tokens=5).sequences.tolist()
    return found


def wait_until(condition: Any, seconds: float = 10.0) -> None:
    """Wait for what another thread does soon."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.005)
