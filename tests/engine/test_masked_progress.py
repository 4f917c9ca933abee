"""Under a mask, tokens that it ties together run together: beside other callers' tokens, and while beams wait."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sabiyarn_edge.engine.decoder import Decoder
from sabiyarn_edge.engine.generation import Generation
from sabiyarn_edge.engine.prefill_pace import LEAST_TOKENS
from sabiyarn_edge.engine.prompt_mask import PromptMask
from tests.engine.driving import Driver

LENGTH = 80
PROMPT = np.random.default_rng(3).integers(0, 300, LENGTH).tolist()
CAUSAL = np.tri(LENGTH, dtype=bool)
TIED = CAUSAL | (np.arange(LENGTH) < 40)  # the first 40 tokens see one another
MASKS = {"none": None, "causal": CAUSAL, "tied": TIED}
MOST_STEPS = 2000
"""More than any of these needs: then it waits for ever."""


def slide(model: Path, mask: np.ndarray | None, chunk: int, beams: int) -> tuple[list[list[int]], int]:
    """The sequences of a text that slides, and how often rows ran again."""
    driver = Driver(Decoder(model, num_threads=1, max_prefill_chunk=chunk))
    request = driver.request(
        PROMPT,
        60,
        decode={"num_beams": beams, "num_return_sequences": beams},
        slides=True,
        mask=None if mask is None else PromptMask(LENGTH, mask),
    )
    work = Generation(request)
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1
        assert steps < MOST_STEPS, "no row goes on"

    driver.run([work], between=count)
    return [list(ids) for ids in work.state.sequences()], work.times.reruns


@pytest.mark.parametrize("name", MASKS)
@pytest.mark.parametrize("beams", [2, 5])
def test_beams_that_slide_go_on_whatever_a_run_takes(text_model: Path, name: str, beams: int) -> None:
    mask = MASKS[name]
    expected, reruns = slide(text_model, mask, 256, beams)
    assert reruns > 0
    if name == "causal":
        assert expected == slide(text_model, None, 256, beams)[0]
    for chunk in (1, 2, beams + 1, 16, 47, LENGTH):
        assert slide(text_model, mask, chunk, beams)[0] == expected, chunk


@pytest.mark.parametrize("name", MASKS)
def test_a_prompt_begins_while_others_decode(
    text_model: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Steps are short then: shorter than what a mask ties together, or than a run alone."""
    driver = Driver(Decoder(text_model, num_threads=1), step_by_step=True)
    pace = driver.scheduler._pace
    monkeypatch.setattr(pace, "tokens", LEAST_TOKENS)
    monkeypatch.setattr(pace, "record", lambda *_: None)
    mask = MASKS[name]
    talking = Generation(driver.request([1, 2, 3], 60))
    prompt = Generation(driver.request(PROMPT, 1, mask=None if mask is None else PromptMask(LENGTH, mask)))
    talking.group, prompt.group = 1, 2
    driver.scheduler.add([talking])
    driver.scheduler.step()
    driver.scheduler.add([prompt])
    while not talking.done and not prompt.done:
        driver.scheduler.step()
    assert prompt.done
    assert not talking.done
    assert len(talking.state.history_of(0)) - 3 <= 2 + LENGTH / LEAST_TOKENS  # two before; one with each run
