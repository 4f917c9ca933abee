"""Whose turn it is when works of several groups wait for rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from sabiyarn_edge.engine.decoder import Decoder
from sabiyarn_edge.engine.generation import Generation
from sabiyarn_edge.engine.scheduler import Scheduler
from sabiyarn_edge.engine.work import Work
from tests.engine.driving import Driver

Make = Callable[..., list[Work]]


@pytest.fixture
def driver(text_model: Path) -> Driver:
    driver = Driver(Decoder(text_model, num_threads=1))
    driver.scheduler = Scheduler(driver.decoder, driver.rows, max_rows=2)
    driver.scheduler.called = True  # one run at a time
    return driver


@pytest.fixture
def make(driver: Driver) -> Make:
    def make(group: object, count: int, num_beams: int = 1) -> list[Work]:
        decode = {"num_beams": num_beams}
        works: list[Work] = []
        for token in range(count):
            works.append(Generation(driver.request([token], 3, num_rows=num_beams, decode=decode)))
            works[-1].group = group
        return works

    return make


def ended(works: Sequence[Work]) -> int:
    return sum(work.done for work in works)


def test_a_group_of_one_does_not_wait_for_a_group_of_many(driver: Driver, make: Make) -> None:
    many, [one] = make("many", 12), make("one", 1)
    driver.scheduler.add(many)
    driver.scheduler.step()
    driver.scheduler.add([one])
    while not one.done:
        driver.scheduler.step()
        done = [work.done for work in many]
        assert done == sorted(done, reverse=True)  # first come, first served, within a group
    assert ended(many) <= 6  # two ran, two go before it, and two may end beside it
    driver.run([])
    assert ended(many) == 12


def test_groups_take_turns(driver: Driver, make: Make) -> None:
    first, second, third = make("first", 3), make("second", 2), make("third", 1)
    for works in (first, second, third):
        driver.scheduler.add(works)
    expected = [*first[:2], second[0], third[0], first[2], second[1]]
    assert list(driver.scheduler.waiting) == expected
    driver.run([])
    driver.scheduler.add(first := make("second", 2))  # turns of the past count for nothing
    driver.scheduler.add(second := make("first", 1))
    assert list(driver.scheduler.waiting) == [*first, *second]


def test_new_groups_without_end_do_not_keep_the_others_out(driver: Driver, make: Make) -> None:
    many, wide = make("many", 4), make("wide", 1, num_beams=2)
    driver.scheduler.add(many)
    driver.scheduler.add(wide)
    for step in range(100):
        driver.scheduler.add(make(step, 1))  # more than the rows can run
        driver.scheduler.step()
    assert ended(many) == 4
    assert ended(wide) == 1  # it takes all rows, while one is often free
