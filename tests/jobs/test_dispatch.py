"""Dispatch gives each line to one worker at a time, until it has come back."""

from __future__ import annotations

import random

from sabiyarn_edge.jobs.dispatch import BLOCKS_EACH, MOST_LOSSES, Block, Dispatch, cluster_window


def all_next(dispatch: Dispatch[int]) -> list[Block[int]]:
    return list(iter(dispatch.next, None))


def test_each_line_comes_back_once_whatever_workers_do() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")  # shown when this fails
    draw = random.Random(seed)
    dispatch: Dispatch[int] = Dispatch(4)
    running: dict[int, Block[int]] = {}
    came_back: list[int] = []
    given_up: list[int] = []
    workers = {0}
    dispatch.join(0)
    added = 0
    while added < 500 or running or not workers:
        choice = draw.random()
        if choice < 0.1:
            worker = 1 + max(workers, default=0) + added
            workers.add(worker)
            dispatch.join(worker)
        elif choice < 0.15 and workers:
            worker = draw.choice(sorted(workers))
            workers.remove(worker)
            given_up += dispatch.leave(worker)
            for number in [number for number, block in running.items() if block.worker == worker]:
                assert dispatch.done(number) is None  # another has its lines
                del running[number]
        elif choice < 0.6 and running:
            number = draw.choice(sorted(running))
            block = running.pop(number)
            assert dispatch.done(number) is block
            came_back += block.items
        elif added < 500:
            dispatch.add(added)
            added += 1
        for block in all_next(dispatch):
            running[block.number] = block
            assert block.worker in workers
            assert 1 <= len(block.items) <= 4
        for worker in workers:
            assert sum(block.worker == worker for block in running.values()) <= BLOCKS_EACH
    assert sorted(came_back + given_up) == list(range(500))


def test_blocks_go_to_who_has_fewest_and_shrink_at_the_end() -> None:
    dispatch: Dispatch[int] = Dispatch(100)
    for worker in "ab":
        dispatch.join(worker)
    for line in range(40):
        dispatch.add(line)
    blocks = all_next(dispatch)
    assert [block.worker for block in blocks] == ["a", "b", "a", "b"]
    # A share is a quarter of what waits: 40, then 30, 23, 18.
    assert [len(block.items) for block in blocks] == [10, 7, 5, 4]
    assert [item for block in blocks for item in block.items] == list(range(26))
    dispatch.done(blocks[1].number)
    (following,) = all_next(dispatch)
    assert (following.worker, following.items) == ("b", [26, 27, 28])


def test_a_line_that_ends_its_workers_is_given_up_alone() -> None:
    """Others that were lost with it come back: the last time it is the only line of its worker."""
    dispatch: Dispatch[int] = Dispatch(3)
    poison = 4
    for line in range(9):
        dispatch.add(line)
    came_back: list[int] = []
    given_up: list[int] = []
    for worker in range(50):
        dispatch.join(worker)
        while blocks := all_next(dispatch):  # all that the worker gets at once
            if any(poison in block.items for block in blocks):
                given_up += dispatch.leave(worker)
                break
            for block in blocks:
                dispatch.done(block.number)
                came_back += block.items
    assert given_up == [poison]
    assert sorted(came_back) == [0, 1, 2, 3, 5, 6, 7, 8]


def test_more_is_given_out_than_workers_have() -> None:
    window = cluster_window(3, 8)
    assert window.most_rows == 2 * 3 * BLOCKS_EACH * 8
    assert window.most_waiting >= 2 * window.most_rows
    assert window.admits(window.most_rows, 0)
    assert MOST_LOSSES > 1  # one loss is an accident
