"""The simulation of a cluster gives what is computed by hand where that is possible."""

from __future__ import annotations

import itertools

import pytest

cluster = pytest.importorskip("benchmarks.cluster", reason="needs a checkout")

NEVER = float("inf")
EVEN = {
    "tokens_per_second": 100.0,
    "spread": 0.0,
    "model_mib": 0.0,
    "line_us": 0.0,
    "lines_each": 1,
    "block_lines": 1,
}
"""Nodes that make a line of 100 tokens each second."""


def test_equal_lines_on_equal_nodes_take_their_share() -> None:
    run = cluster.Simulation(cluster.Cluster(nodes=4, lines=64, **EVEN), {100: 1}, lambda node: NEVER).run()
    assert run["makespan_seconds"] == run["bound_seconds"] == 64 / 4
    assert (run["blocks"], run["failures"], run["tokens"]) == (64, 0, 6400)


def test_what_a_failed_node_had_is_done_by_the_other() -> None:
    """Node 1 ends 2 of 20 lines, fails at 2.5 s and never comes back: node 0 has 18 s of work, and never waits."""
    settings = cluster.Cluster(nodes=2, lines=20, found_seconds=1.0, replaced_seconds=1000.0, **EVEN)
    run = cluster.Simulation(settings, {100: 1}, lambda node: 2.5 if node == 1 else NEVER).run()
    assert (run["makespan_seconds"], run["failures"], run["blocks"]) == (18.0, 1, 20)


def test_a_model_that_is_copied_and_a_slow_reader() -> None:
    copied = {**EVEN, "model_mib": 3.0, "store_mib_per_second": 1.0}
    one = cluster.Simulation(cluster.Cluster(nodes=1, lines=5, **copied), {100: 1}, lambda node: NEVER).run()
    assert one["makespan_seconds"] == 3 + 5
    # The process that reads and writes needs 4 s for each of 5 lines; two nodes compute them meanwhile.
    slow = {**EVEN, "line_us": 4e6}
    run = cluster.Simulation(cluster.Cluster(nodes=2, lines=5, **slow), {100: 1}, lambda node: NEVER).run()
    assert run["makespan_seconds"] == run["driver_seconds"] == 20


def test_lengths_speeds_and_failures_at_random_stay_near_the_bound() -> None:
    settings = cluster.Cluster(nodes=20, lines=200_000, failures_per_day=24.0, seed=3)
    runs = [cluster.Simulation(settings, cluster.UDHR_LINES).run() for _ in range(2)]
    assert runs[0] == runs[1]  # the seed decides
    assert runs[0]["failures"] > 0
    # 150 s of each hour are lost: 4 %; at the end, a block of 128 lines on the slowest node: 36 s of 2250.
    assert 1 <= runs[0]["makespan_of_bound"] < 1.1
    expected = sum(itertools.starmap(lambda tokens, lines: tokens * lines, cluster.UDHR_LINES.items()))
    mean = expected / sum(cluster.UDHR_LINES.values())
    assert runs[0]["tokens"] == pytest.approx(
        mean * 200_000, rel=0.02
    )  # 7 standard errors of 121 / sqrt(200000)
