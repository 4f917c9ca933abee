"""The full window through the graph: every token sees exactly what the ring holds, whatever happened before.

The oracle is torch's uncached forward under a mask that a list of positions gives: when a token comes, it sees the
sinks and the newest others, itself included, `window` in all; what was evicted does not come back when newer tokens
are forgotten. The bound is that of test_session.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge._core import DecodeOptions, DecodeState
from sabiyarn_edge.engine.decoder import Decoder
from sabiyarn_edge.modeling import GPTJXForCausalLM
from tests.core.kv.twins_kv import RingTwin
from tests.export.models import export_tiny
from tests.sliding_oracle import windowed_mask

BLOCK = 160
WINDOW, SINKS = 12, 3
BOUND = 5e-5


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ring")
    return export_tiny(root, {"block_size": BLOCK}, kv_cache_dtype="float32", verify=False).folder


@pytest.fixture(scope="module")
def torch_model(folder: Path) -> GPTJXForCausalLM:
    return GPTJXForCausalLM.from_pretrained(folder.parent / "checkpoint")


def logits_under(model: GPTJXForCausalLM, tokens: list[int], mask: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return model(torch.tensor([tokens]), attn_mask=torch.from_numpy(mask)).logits[0].numpy()


# --- random schedules


@dataclass
class Row:
    """A row as the oracle sees it."""

    ring: RingTwin = field(default_factory=lambda: RingTwin(WINDOW, SINKS))
    tokens: list[int] = field(default_factory=list)
    seen: list[list[int]] = field(default_factory=list)
    """Positions that each token saw."""

    def append(self, token: int) -> None:
        self.ring.append(1)
        self.tokens.append(token)
        self.seen.append(list(self.ring.held))

    def truncate(self, total: int) -> None:
        self.ring.truncate(total)
        del self.tokens[total:], self.seen[total:]

    def copy(self) -> Row:
        return Row(self.ring.copy(), list(self.tokens), list(self.seen))

    def mask(self) -> np.ndarray:
        mask = np.zeros((len(self.tokens), len(self.tokens)), bool)
        for query, keys in enumerate(self.seen):
            mask[query, keys] = True
        return mask


class RingSchedule(RuleBasedStateMachine):
    """Rows of one session: chunks of any size are run into them, they are forked, cut and forgotten."""

    session: Decoder
    model: GPTJXForCausalLM

    @initialize(rows=st.integers(1, 3))
    def start(self, rows: int) -> None:
        self.session.kv_cache.reset(rows)
        self.rows = [Row() for _ in range(rows)]

    @rule(data=st.data(), seed=st.integers(0, 2**32 - 1), chunk=st.sampled_from([1, 4, 64]))
    def run_tokens(self, data: st.DataObject, seed: int, chunk: int) -> None:
        row = self.draw_row(data)
        room = BLOCK - len(self.rows[row].tokens)
        if room == 0:
            return
        count = data.draw(st.integers(1, min(room, 30)), "count")
        tokens = np.random.default_rng(seed).integers(0, 97, count)
        assert self.session.runner.prefill(row, tokens, chunk, 0, 1)
        for token in tokens.tolist():
            self.rows[row].append(token)
        expected = logits_under(self.model, self.rows[row].tokens, self.rows[row].mask())[-1]
        np.testing.assert_allclose(self.session.runner.logits(1)[0], expected, rtol=0, atol=BOUND)

    @rule(data=st.data())
    def reorder(self, data: st.DataObject) -> None:
        rows = st.integers(0, len(self.rows) - 1)
        sources = data.draw(st.lists(rows, min_size=1, max_size=4), "sources")
        self.session.kv_cache.reorder(sources)
        self.rows = [self.rows[source].copy() for source in sources]

    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        row = self.draw_row(data)
        total = data.draw(st.sampled_from(self.rows[row].ring.may_truncate_to()), "total")
        self.session.kv_cache.truncate(row, total)
        self.rows[row].truncate(total)

    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        row = self.draw_row(data)
        self.session.kv_cache.restart(row)
        self.rows[row] = Row()

    @rule(rows=st.integers(1, 3))
    def clear(self, rows: int) -> None:
        self.session.clear_kv_cache()
        self.start(rows)

    def draw_row(self, data: st.DataObject) -> int:
        return int(data.draw(st.integers(0, len(self.rows) - 1), "row"))


def test_any_schedule_equals_torch(folder: Path, torch_model: GPTJXForCausalLM) -> None:
    class Schedule(RingSchedule):
        session = Decoder(folder, num_threads=1, window=WINDOW, num_sink_tokens=SINKS)
        model = torch_model

    run_state_machine_as_test(
        Schedule, settings=settings(max_examples=40, stateful_step_count=15, deadline=None)
    )


# --- generation


def windowed(folder: Path, sinks: int = SINKS, **options: Any) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(
        folder, num_threads=1, kv_window=WINDOW, num_sink_tokens=sinks, **options
    )


def random_prompts(*lengths: int) -> list[list[int]]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 97, length).tolist() for length in lengths]


def decode_with_torch(
    model: GPTJXForCausalLM, prompts: list[list[int]], sinks: int, **options: Any
) -> list[list[int]]:
    """Sequences that the core chooses from uncached logits under the sliding window."""
    state = DecodeState(DecodeOptions(**options), model.config.vocab_size, prompts)
    while not state.finished:
        rows = [state.history_of(row) for row in range(state.num_rows)]
        masks = [windowed_mask(len(ids), WINDOW, sinks) for ids in rows]
        logits = [logits_under(model, list(ids), mask)[-1] for ids, mask in zip(rows, masks, strict=True)]
        state.advance(np.array(logits))
    return [list(ids) for ids in state.sequences()]


@pytest.mark.parametrize("sinks", [0, SINKS])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3, "length_penalty": 1.2, "num_return_sequences": 2},
        {"num_beams": 2, "do_sample": True, "temperature": 2.0},
        {"do_sample": True, "temperature": 2.0, "num_return_sequences": 2},
        {"repetition_penalty": 1.3, "eos_token_id": [3, 40, 41]},
    ],
    ids=["greedy", "beams", "beams-sampled", "sampled", "ends"],
)
def test_prompts_of_any_length_and_every_mode_equal_torch(
    folder: Path, torch_model: GPTJXForCausalLM, options: dict[str, Any], sinks: int
) -> None:
    prompts = random_prompts(2, WINDOW - 1, WINDOW, WINDOW + 1, 5 * WINDOW)
    seeds = [7, 8, 9, 10, 11]
    expected = decode_with_torch(torch_model, prompts, sinks, max_new_tokens=25, seeds=seeds, **options)
    result = windowed(folder, sinks).generate(
        prompts, max_new_tokens=25, seed=seeds if "do_sample" in options else None, **options
    )
    found = [ids[:n].tolist() for ids, n in zip(result.sequences, result.lengths, strict=True)]
    assert found == expected


@pytest.mark.parametrize("prompt", [[1, 2, 3] * 2, [1, 2, 3] * 3, [1, 2, 3] * 20], ids=len)
def test_prompt_lookup_wraps_alike(folder: Path, prompt: list[int]) -> None:
    generator = windowed(folder)
    expected = generator.generate(prompt, max_new_tokens=40, reuse_prefix=False)
    found = generator.generate(prompt, max_new_tokens=40, prompt_lookup_num_tokens=4, reuse_prefix=False)
    assert found.sequences.tolist() == expected.sequences.tolist()
