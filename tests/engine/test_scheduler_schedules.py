"""The scheduler over random schedules: works join, are cancelled and left between steps.

The oracle is each work alone, on a decoder of its own without prefix reuse. Logits are compared bit for bit.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from sabiyarn_edge.calls.choices import ChoiceScoring
from sabiyarn_edge.engine.decoder import Decoder
from sabiyarn_edge.engine.generation import Generation, Lookup
from sabiyarn_edge.engine.prompt_mask import PromptMask
from sabiyarn_edge.engine.scheduler import Scheduler
from sabiyarn_edge.engine.work import Work
from tests.engine.driving import Driver
from tests.schedules import LENGTHS, schedule_settings

MAX_ROWS = 5
WAYS: list[dict[str, Any]] = [
    {},
    {"decode": {"do_sample": True, "temperature": 2.0, "seeds": [7]}},
    {
        "decode": {"do_sample": True, "temperature": 2.0, "seeds": [7, 8, 9], "num_return_sequences": 3},
        "num_rows": 3,
    },
    {"decode": {"num_beams": 2}, "num_rows": 2},
    {"decode": {"num_beams": 3, "length_penalty": -1.0, "eos_token_id": [3, 5]}, "num_rows": 3},
    {"lookup": Lookup(3, 2)},
    {"slides": True, "positions": 96},
    {"mask": True},
]
BEGINNINGS = [[1] * 20 + [2] * 30, [1] * 20 + [3] * 20, [4] * 40, []]
PROMPTS = st.tuples(st.sampled_from(BEGINNINGS), st.lists(st.integers(0, 9), min_size=1, max_size=6)).map(
    lambda parts: [*parts[0], *parts[1]]
)


class Task:
    """A work, and how to make it once more."""

    def __init__(self, kind: str, prompt: list[int], **details: Any) -> None:
        self.kind, self.prompt, self.details = kind, prompt, details
        self.logits: list[bytes] = []
        self.cancelled = False

    @property
    def key(self) -> str:
        return repr((self.kind, self.prompt, self.details))

    def make(self, driver: Driver, *, reuse: bool) -> Work:
        if self.kind == "choices":
            return ChoiceScoring(self.prompt, self.details["choices"], reuse_prefix=reuse)
        options = dict(WAYS[self.details["way"]])
        if options.pop("mask", False):
            length = len(self.prompt)
            options["mask"] = PromptMask(length, np.ones((length, length), np.bool_))
        self.logits.clear()
        keep = partial(dict, after_scores=lambda _, scores: self.logits.append(scores.tobytes()))
        request = driver.request(
            self.prompt, self.details["new_tokens"], reuse_prefix=reuse, hooks=keep, **options
        )
        return Generation(request)

    def result(self, work: Work) -> tuple[list[bytes], list[list[int]], list[float]]:
        if isinstance(work, ChoiceScoring):
            return [], [], work.log_probs.tolist()
        assert isinstance(work, Generation)
        return list(self.logits), [list(ids) for ids in work.state.sequences()], []


class Schedules(RuleBasedStateMachine):
    """Works of every kind on one scheduler."""

    decoder: Decoder
    alone: Driver
    results: ClassVar[dict[str, Any]]

    @initialize(pool_mib=st.sampled_from([0, 1]))
    def start(self, pool_mib: int) -> None:
        self.decoder.clear_kv_cache()
        self.driver = Driver(self.decoder, pool_mib * 2**20)
        self.scheduler = Scheduler(self.decoder, self.driver.rows, max_rows=MAX_ROWS)
        self.scheduler.called = True  # one run at a time: others join between them
        self.added: list[tuple[Task, Work]] = []

    @rule(prompt=PROMPTS, way=st.integers(0, len(WAYS) - 1), new_tokens=st.integers(1, 12))
    def generate(self, prompt: list[int], way: int, new_tokens: int) -> None:
        if WAYS[way].get("slides"):
            new_tokens += 96
        self.add(Task("generate", prompt, way=way, new_tokens=new_tokens))

    @rule(
        prompt=PROMPTS,
        choices=st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4), min_size=1, max_size=3),
    )
    def choose(self, prompt: list[int], choices: list[list[int]]) -> None:
        self.add(Task("choices", prompt, choices=choices))

    def add(self, task: Task) -> None:
        work = task.make(self.driver, reuse=True)
        self.added.append((task, work))
        self.scheduler.add([work])

    @rule(times=st.integers(1, 8))
    def step(self, times: int) -> None:
        for _ in range(times):
            if not self.scheduler.idle:
                self.scheduler.step()

    @rule(data=st.data(), leaves=st.booleans())
    def stop(self, data: st.DataObject, leaves: bool) -> None:
        if not self.added:
            return
        task, work = self.added[data.draw(st.integers(0, len(self.added) - 1), "work")]
        if work.done:
            return
        task.cancelled = True
        if leaves:
            work.abandoned = True
        else:
            work.cancel()

    @invariant()
    def no_row_has_two_owners(self) -> None:
        if not hasattr(self, "added"):
            return
        rows = [id(row) for _, work in self.added for row in work.rows]
        assert len(set(rows)) == len(rows) == len(self.driver.rows.live)
        assert sum(work.num_rows for work in self.scheduler.live) <= MAX_ROWS
        begun = [work in self.scheduler.live or work.done for _, work in self.added]
        waiting = [work for _, work in self.added if work in self.scheduler.waiting]
        assert list(self.scheduler.waiting) == waiting  # first come, first served
        assert all(begun[: begun.index(False)] if False in begun else begun)

    def teardown(self) -> None:
        if not hasattr(self, "added"):
            return
        while not self.scheduler.idle:
            self.scheduler.step()
            self.no_row_has_two_owners()
        assert list(self.driver.rows.live) == []
        for task, work in self.added:
            if task.cancelled:
                continue
            assert work.error is None, work.error
            found = task.result(work)
            assert found == self.expected(task), task.key

    def expected(self, task: Task) -> Any:
        if task.key not in self.results:
            work = task.make(self.alone, reuse=False)
            self.alone.run([work])
            self.results[task.key] = task.result(work)
        return self.results[task.key]


@pytest.mark.parametrize("longer", LENGTHS)
def test_works_give_what_each_gives_alone(text_model: Path, longer: int) -> None:
    class Machine(Schedules):
        decoder = Decoder(text_model, num_threads=1, max_prefill_chunk=24)
        alone = Driver(Decoder(text_model, num_threads=1), step_by_step=True)
        results: ClassVar[dict[str, Any]] = {}

    run_state_machine_as_test(Machine, settings=schedule_settings(longer, schedules=8, steps=12))


def test_a_prompt_takes_nothing_over_from_a_masked_one_beside_it(text_model: Path) -> None:
    """Keys and values depend on the mask: the two begin alike only in their tokens."""
    driver = Driver(Decoder(text_model, num_threads=1), step_by_step=True)
    prompt = [*BEGINNINGS[0], 5]
    masked, plain = (Task("generate", prompt, way=way, new_tokens=12) for way in (len(WAYS) - 1, 0))
    expected = plain.make(driver, reuse=False)
    driver.run([expected])
    alone = plain.result(expected)
    driver.scheduler.add([masked.make(driver, reuse=True)])
    for _ in range(3):  # it has run its prompt, and goes on
        driver.scheduler.step()
    work = plain.make(driver, reuse=True)
    driver.run([work])
    assert plain.result(work) == alone


def test_what_a_masked_prompt_leaves_is_let_go(text_model: Path) -> None:
    driver = Driver(Decoder(text_model, num_threads=1))
    plain, masked = (Task("generate", [1, 2, 3], way=way, new_tokens=2) for way in (0, len(WAYS) - 1))
    for task, kept in ((plain, 4), (masked, 0)):  # the last token was not run
        driver.run([task.make(driver, reuse=True)])
        assert (0 if driver.rows.idle is None else len(driver.rows.idle.tokens)) == kept
