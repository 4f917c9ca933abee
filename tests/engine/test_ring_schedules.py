"""The window through the graph: every token sees the sinks and the newest others, `window` in all.

The oracle is torch's uncached forward under that mask. The bound is that of test_decoder.py.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge._core import DecodeOptions, DecodeState, derived_seed
from sabiyarn_edge.engine.decoder import Decoder
from sabiyarn_edge.modeling import GPTJXForCausalLM
from tests.export.models import export_tiny
from tests.schedules import LENGTHS, schedule_settings
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


class RingSchedule(RuleBasedStateMachine):
    """Rows of one cache: runs of any size are appended to several of them at once; they are forked, cut, released."""

    decoder: Decoder
    model: GPTJXForCausalLM

    @initialize(rows=st.integers(1, 3))
    def start(self, rows: int) -> None:
        self.decoder.clear_kv_cache()
        self.decoder.kv_cache.resize(rows)
        self.rows: list[list[int]] = [[] for _ in range(rows)]
        self.oldest = [0] * rows  # of each row: the lowest total that it can be cut to

    @rule(data=st.data(), seed=st.integers(0, 2**32 - 1))
    def run_tokens(self, data: st.DataObject, seed: int) -> None:
        cache, items, ran = self.decoder.kv_cache, [], []
        for row, tokens in enumerate(self.rows):
            room = min(BLOCK - len(tokens), cache.max_append(row), 40)
            count = data.draw(st.integers(0, max(room, 0)), f"tokens for row {row}")
            if count > 0:
                new = np.random.default_rng(seed + row).integers(0, 97, count).tolist()
                wanted = data.draw(st.integers(1, count), "logits")
                items.append((row, new, wanted, None))
                ran.append((row, wanted))
                tokens += new
        if not items:
            return
        self.decoder.runner.run(items)
        first = 0
        for row, wanted in ran:
            ids = self.rows[row]
            expected = logits_under(self.model, ids, windowed_mask(len(ids), WINDOW, SINKS))[-wanted:]
            found = self.decoder.runner.logits(first, wanted)
            np.testing.assert_allclose(found, expected, rtol=0, atol=BOUND)
            first += wanted
            if len(ids) > cache.ring_size:  # the ring has wrapped: cut tokens must leave the next its window
                self.oldest[row] = max(self.oldest[row], len(ids) - (cache.ring_size - WINDOW) - 1)

    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        source = self.draw_row(data)
        others = [row for row in range(len(self.rows)) if row != source]
        if not others:
            return
        targets = data.draw(st.lists(st.sampled_from(others), min_size=1, unique=True), "targets")
        total = data.draw(st.integers(self.oldest[source], len(self.rows[source])), "total")
        self.decoder.kv_cache.fork(source, targets, total)
        for target in targets:
            self.rows[target] = self.rows[source][:total]
            self.oldest[target] = self.oldest[source]

    @rule(data=st.data())
    def truncate(self, data: st.DataObject) -> None:
        row = self.draw_row(data)
        total = data.draw(st.integers(self.oldest[row], len(self.rows[row])), "total")
        self.decoder.kv_cache.truncate(row, total)
        del self.rows[row][total:]

    @rule(data=st.data(), releases=st.booleans())
    def forget(self, data: st.DataObject, releases: bool) -> None:
        row, cache = self.draw_row(data), self.decoder.kv_cache
        (cache.release_row if releases else cache.restart)(row)
        self.rows[row], self.oldest[row] = [], 0

    @rule()
    def add_a_row(self) -> None:
        if len(self.rows) < 5:
            self.decoder.kv_cache.resize(len(self.rows) + 1)
            self.rows.append([])
            self.oldest.append(0)

    @rule(rows=st.integers(1, 3))
    def clear(self, rows: int) -> None:
        self.start(rows)

    def draw_row(self, data: st.DataObject) -> int:
        return int(data.draw(st.integers(0, len(self.rows) - 1), "row"))


@pytest.mark.parametrize("longer", LENGTHS)
def test_any_schedule_equals_torch(folder: Path, torch_model: GPTJXForCausalLM, longer: int) -> None:
    class Schedule(RingSchedule):
        decoder = Decoder(folder, num_threads=1, window=WINDOW, num_sink_tokens=SINKS)
        model = torch_model

    run_state_machine_as_test(Schedule, settings=schedule_settings(longer, schedules=40, steps=15))


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
    returns = options.get("num_return_sequences", 1)
    options["seeds"] = [derived_seed(seed, i) for seed in options["seeds"] for i in range(returns)]
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
