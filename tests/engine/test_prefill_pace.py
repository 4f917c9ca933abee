"""How many prompt tokens a step takes where several callers wait follows from how long runs take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sabiyarn_edge.engine.decoder import Decoder
from sabiyarn_edge.engine.generation import Generation
from sabiyarn_edge.engine.prefill_pace import DELAY_SECONDS, FIRST_TOKENS, LEAST_TOKENS, PrefillPace
from tests.engine.driving import Driver


@pytest.mark.parametrize("tokens_per_second", [100.0, 600.0, 900.0, 5000.0])
@pytest.mark.parametrize("steps", [1, 20])
def test_steps_come_to_last_about_the_delay(tokens_per_second: float, steps: int) -> None:
    pace = PrefillPace()
    for _ in range(30):
        pace.record(pace.tokens, steps, (pace.tokens + steps) / tokens_per_second)
    expected = max(DELAY_SECONDS * tokens_per_second, LEAST_TOKENS)
    assert pace.tokens == pytest.approx(expected, abs=1)  # whole tokens


def test_one_slow_run_is_forgotten_in_a_few() -> None:
    pace = PrefillPace()
    for seconds in (*[0.1] * 20, 3.0, *[0.1] * 6):
        pace.record(pace.tokens, 0, seconds * pace.tokens / 80)
    assert 70 <= pace.tokens <= 81


def test_short_runs_do_not_count() -> None:
    pace = PrefillPace()
    pace.record(30, 5, 10.0)
    pace.record(64, 5, 0.0)
    assert pace.tokens == PrefillPace().tokens


@pytest.mark.parametrize(("groups", "expected"), [((1, 1), 100), ((1, 2), FIRST_TOKENS)])
def test_prompts_of_several_callers_begin_in_short_steps(
    text_model: Path, monkeypatch: pytest.MonkeyPatch, groups: tuple[int, int], expected: int
) -> None:
    driver = Driver(Decoder(text_model, num_threads=1))
    works = [Generation(driver.request([caller] * 50, 1)) for caller in (1, 2)]
    for work, group in zip(works, groups, strict=True):
        work.group = group
    runner, runs = driver.decoder.runner, []

    class Recording:
        def __getattr__(self, name: str) -> Any:
            return getattr(runner, name)

        def run(self, items: list[Any], *rest: Any) -> None:
            runs.append(sum(len(tokens) for _, tokens, *_ in items))
            runner.run(items, *rest)

    monkeypatch.setattr(driver.decoder, "runner", Recording())
    driver.run(works)
    assert runs[0] == expected
