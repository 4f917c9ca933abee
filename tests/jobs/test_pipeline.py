"""in_order: the order of units that end in any order, and the bounds of what runs and waits."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sabiyarn_edge.jobs.pipeline import _Line, in_order
from sabiyarn_edge.jobs.window import Window


class Fake:
    """A unit that a thread ends when it likes."""

    def __init__(self, name: int, rows: int, positions: int, machine: Machine) -> None:
        self.name, self.rows, self.positions, self.machine = name, rows, positions, machine
        self.abandoned = False

    def start(self, ended: Callable[[], None]) -> None:
        self.machine.add(self, ended)

    def outcome(self) -> Any:
        return self.name

    def abandon(self) -> None:
        self.abandoned = True


class Machine:
    """Ends units in random order, from a thread of its own."""

    def __init__(self, seed: int) -> None:
        self.random, self.lock = random.Random(seed), threading.Lock()
        self.live: list[tuple[Fake, Callable[[], None]]] = []
        self.most_rows = self.most_positions = 0
        self.closed = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def add(self, unit: Fake, ended: Callable[[], None]) -> None:
        with self.lock:
            self.live.append((unit, ended))
            self.most_rows = max(self.most_rows, sum(unit.rows for unit, _ in self.live))
            if len(self.live) > 1:
                self.most_positions = max(self.most_positions, sum(unit.positions for unit, _ in self.live))

    def run(self) -> None:
        while not self.closed.wait(0.0002):
            with self.lock:
                chosen = self.live.pop(self.random.randrange(len(self.live))) if self.live else None
            if chosen:
                chosen[1]()


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine(seed=5)
    yield machine
    machine.closed.set()
    machine.thread.join()


@pytest.fixture(autouse=True)
def only_woken_when_the_first_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wake-up that is lost would hang: nobody looks again by himself."""
    monkeypatch.setattr("sabiyarn_edge.jobs.pipeline.SIGNAL_SECONDS", 1e6)


def test_all_in_order_and_never_more_than_the_window(machine: Machine) -> None:
    draw = random.Random(3)
    given = [
        None if draw.random() < 0.2 else Fake(i, draw.choice([1, 1, 2, 5]), draw.randrange(1, 60), machine)
        for i in range(300)
    ]
    read, behind = 0, 0

    def units() -> Iterator[tuple[Fake | None, int]]:
        nonlocal read
        for place, unit in enumerate(given):
            read += 1
            yield unit, place

    window = Window(most_rows=6, most_positions=100, most_waiting=16)
    for expected, (unit, place) in enumerate(in_order(units(), window)):
        assert (place, unit) == (expected, given[expected])
        behind = max(behind, read - expected)
    assert expected == 299
    assert machine.most_rows <= 6
    assert machine.most_positions <= 100
    assert behind <= 16 + 1  # and the one that waits for room
    assert (window.rows, window.positions) == (0, 0)


def test_a_unit_that_is_larger_than_the_window_runs_alone(machine: Machine) -> None:
    units = [Fake(0, 1, 5, machine), Fake(1, 50, 5, machine), Fake(2, 1, 5, machine)]
    assert [place for _, place in in_order([(u, u.name) for u in units], Window(4, 100, 16))] == [0, 1, 2]
    assert machine.most_rows == 50


def test_who_stops_reading_abandons_what_runs(machine: Machine) -> None:
    units = [Fake(i, 1, 1, machine) for i in range(40)]
    for unit in units[1:]:
        unit.start = lambda ended: None  # type: ignore[method-assign]  # it never ends
    reading = in_order([(unit, unit.name) for unit in units], Window(4, 100, 16))
    next(reading)
    reading.close()
    assert [unit.name for unit in units if unit.abandoned] == [1, 2, 3, 4]


def test_the_end_of_a_later_unit_does_not_wake_the_reader(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = 0
    wait = _Line.wait

    def counted(line: _Line[int]) -> None:
        nonlocal waits
        waits += 1
        wait(line)

    monkeypatch.setattr(_Line, "wait", counted)
    units = [Fake(i, 1, 1, machine) for i in range(50)]
    later_ended = threading.Event()

    def end_last(ended: Callable[[], None]) -> None:
        threading.Thread(target=lambda: (later_ended.wait(), ended())).start()

    def last_one(ended: Callable[[], None]) -> None:
        machine.add(units[-1], lambda: (ended(), later_ended.set()))  # type: ignore[arg-type, func-returns-value]

    units[0].start, units[-1].start = end_last, last_one  # type: ignore[method-assign]
    assert len(list(in_order([(unit, unit.name) for unit in units], Window(2, 100, 100)))) == 50
    assert waits <= 3  # for the first, and for what else ran when the last had ended


def test_the_end_of_a_unit_starts_the_next_while_the_reader_is_busy(machine: Machine) -> None:
    units = [Fake(i, 1, 1, machine) for i in range(12)]
    all_started = threading.Event()
    units[-1].start = lambda ended: (all_started.set(), machine.add(units[-1], ended))  # type: ignore[method-assign, assignment, func-returns-value]
    reading = in_order([(unit, unit.name) for unit in units], Window(2, 100, 16))
    assert next(reading)[1] == 0
    assert all_started.wait(10)  # though nothing more is read
    assert [name for _, name in reading] == list(range(1, 12))


def test_who_cannot_be_started_is_the_readers_error(machine: Machine) -> None:
    units = [Fake(i, 1, 1, machine) for i in range(6)]

    def refuse(ended: Callable[[], None]) -> None:
        raise ValueError("no")

    units[4].start = refuse  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="no"):
        list(in_order([(unit, unit.name) for unit in units], Window(2, 100, 16)))
