"""The memory plan: its terms against sizes known otherwise, and what a limit refuses, delays and lets go of.

What processes really take: test_memory_limit.py.
"""

from __future__ import annotations

import json
import mmap
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from sabiyarn_edge import EdgeGenerator, MemoryFitWarning, prefix_mask, sliding_window_mask
from sabiyarn_edge.cli import main
from sabiyarn_edge.engine.decoder import Decoder
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.options.generation_config import GenerationConfig
from sabiyarn_edge.planning import memory_plan
from tests.engine.driving import Driver
from tests.export.models import export_tiny

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")

MEDIUM = {"n_layer": 3, "n_heads": 8, "n_embd": 256, "vocab_size": 4000, "block_size": 1024}
"""Large enough for keys, values and scratch to stand out from Python's own modules."""


@pytest.fixture(scope="module")
def medium(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("medium")
    return export_tiny(folder, MEDIUM, dtype="float32", kv_cache_dtype="float16", verify=False).folder


def test_keys_and_values_are_those_of_the_cache(medium: Path) -> None:
    # 2 sides * 3 layers * 256 wide * 2 bytes = 3072 bytes per position; 512 positions are whole pages.
    plan = EdgeGenerator.plan(medium, max_length=512, batch=3)
    assert plan.kv_cache == 3 * 512 * 3072
    kv_cache = Decoder(medium).kv_cache
    kv_cache.resize(3)
    kv_cache.reserve(512)
    assert plan.kv_cache == kv_cache.nbytes


def test_logits_are_those_of_a_run_of_all_rows(medium: Path) -> None:
    decoder = Decoder(medium, num_threads=1)
    Driver(decoder).generate([[5]] * 8, 1)
    # Beside them the buffers hold 8 ids, positions and segments: less than a page, as what is left of the last one.
    assert 0 <= decoder.buffers.nbytes - decoder.costs.logits(8) < 2 * mmap.PAGESIZE


def test_only_what_looks_at_the_whole_vocabulary_pays_for_it(medium: Path) -> None:
    choosing = Decoder(medium, num_threads=1).costs.choosing
    greedy = choosing(GenerationConfig())
    best = choosing(GenerationConfig(do_sample=True, top_k=50))
    any_id = choosing(GenerationConfig(do_sample=True, top_k=0))
    # For each id: a count and a bias; an id and a score; a weight, a key, a place, a mark, and the weight drawn with.
    assert [greedy // 4000, best // 4000, any_id // 4000] == [8, 8 + 8, 8 + 8 + 17]


def test_what_is_held_is_a_row_and_a_copy_of_it(medium: Path) -> None:
    decoder = Decoder(medium, num_threads=1)
    decoder.kv_cache.resize(1)
    decoder.kv_cache.begin_append(0, 500)
    copy = decoder.kv_cache.read(0, 0, 500).nbytes
    one_of_its_parts = copy // (2 * 3)  # keys or values of one layer, which are put in order beside it
    assert decoder.costs.holding(500) - decoder.costs.kv_bytes(500, 500, 1) == copy + one_of_its_parts


def test_each_row_that_slides_has_a_mask_of_its_own(medium: Path) -> None:
    costs = Decoder(medium, num_threads=1).costs
    of_rows = [
        costs.masks(10_000, runs=[(100, 100)], decode=(101, 1), rows=rows, multi_token=False)
        for rows in (0, 3)
    ]
    assert of_rows[1] - of_rows[0] == 3 * 10_000


def test_a_page_is_the_least_that_a_head_takes(medium: Path) -> None:
    plan = EdgeGenerator.plan(medium, max_length=2)
    assert plan.kv_cache == 2 * 3 * 8 * mmap.PAGESIZE  # sides, layers, heads


@linux
@pytest.mark.parametrize("window", [None, 64])
@pytest.mark.parametrize("page", [4096, 16384])
def test_whole_pages_of_either_size_count(
    medium: Path, page: int, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Raspberry Pi 5 has pages of 16 KiB: in a small cache the parts of several heads stand in one."""
    monkeypatch.setattr(mmap, "PAGESIZE", page)
    decoder = Decoder(medium, num_threads=1, window=window)
    decoder.kv_cache.resize(1)
    heads, slot = 8, 32 * 2  # bytes of one position of a head

    def pages(first: int, end: int) -> int:
        """Counted one by one."""
        starts = [head * decoder.kv_cache.capacity * slot for head in range(heads)]
        return len({(start + at * slot) // page for start in starts for at in range(first, end)})

    for prompt, positions in [(1, 2), (40, 60), (100, 256), (300, 512), (700, 1000)]:
        if positions > decoder.kv_cache.ring_size:
            break
        decoder.kv_cache.reserve(positions)
        one, four = (decoder.costs.kv_bytes(prompt, positions, rows) / (2 * 3 * page) for rows in (1, 4))
        assert one == pages(0, positions)
        shares = heads * decoder.kv_cache.capacity * slot % page == 0
        assert four == (pages(0, prompt) + 4 * pages(prompt, positions) if shares else 4 * one)


@linux
def test_beams_share_their_prompt(medium: Path) -> None:
    def kv_cache(beams: int, prompt: int) -> int:
        return EdgeGenerator.plan(medium, max_length=512, prompt_length=prompt, beams=beams).kv_cache

    assert kv_cache(4, 256) == 3072 * (256 + 4 * 256)
    assert kv_cache(1, 256) == 3072 * 512


@linux
def test_beams_whose_window_is_full_share_nothing(medium: Path) -> None:
    plan = EdgeGenerator.plan(medium, max_length=700, prompt_length=256, beams=4, kv_window=256)
    assert plan.kv_cache == 3072 * (256 + 4 * 384)  # the prompt's pages stay, and 256 + 128 slots of each row


def test_a_window_bounds_keys_and_values(medium: Path) -> None:
    whole = EdgeGenerator.plan(medium)
    cut = EdgeGenerator.plan(medium, kv_window=256)
    assert (whole.max_length, cut.max_length) == (1024, 1024)
    assert cut.kv_cache == whole.kv_cache * (256 + 128) // 1024  # a full ring takes chunks of 129 tokens
    assert cut.peak < whole.peak


def test_all_weights_are_mapped(medium: Path) -> None:
    assert EdgeGenerator.plan(medium).weights_mapped == (medium / "weights.bin").stat().st_size


def test_the_moment_that_takes_most_counts(medium: Path) -> None:
    prompt = EdgeGenerator.plan(medium, max_length=512, prompt_length=511)
    text = EdgeGenerator.plan(medium, max_length=512, prompt_length=8, batch=4, beams=8)
    for plan in (prompt, text):  # the largest run of the graph is one of the prompt's, and one of all rows'
        assert plan.peak == plan.runtime + plan.logits + plan.kv_cache + plan.scratch
    assert text.scratch > EdgeGenerator.plan(medium, max_length=512, prompt_length=8, beams=8).scratch


def test_chunks_and_windows_become_smaller_by_powers_of_two(medium: Path) -> None:
    plan = EdgeGenerator.plan(medium, max_length=700, prompt_length=100)
    smaller = list(memory_plan._smaller(plan, {"prompt_length": 100}))
    assert [options["max_prefill_chunk"] for options in smaller] == [64, 32, 16, 16, 16, 16, 16]
    assert [options.get("kv_window") for options in smaller] == [None, None, None, 512, 256, 128, 64]
    assert [options["prompt_length"] for options in smaller] == [100] * 7


def test_a_plan_loads_nothing(medium: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decoder, "__init__", None)
    plan = EdgeGenerator.plan(medium, max_length=100, batch=2, beams=3)
    assert plan.to_dict()["peak"] == plan.peak


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"max_length": 1025},
            "max_length is 1025, but must be an integer from 2 to 1024. The model's block_size is 1024.",
        ),
        ({"max_length": 2.5}, "max_length is 2.5, but must be an integer"),
        ({"max_length": 10, "prompt_length": 11}, "prompt_length is 11, but must be an integer from 1 to 10"),
        ({"batch": 0}, "batch is 0, but must be an integer of at least 1"),
        ({"beams": None}, "beams is None"),
        ({"beams": 4097}, "beams is 4097, but must be an integer from 1 to 4096"),
        ({"kv_window": 1}, "kv_window is 1, but must be an integer from 2 to 1024"),
        ({"kv_window": 1025}, "kv_window is 1025"),
    ],
)
def test_what_cannot_be_is_refused(medium: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        EdgeGenerator.plan(medium, **options)


def test_a_limit_refuses_before_anything_is_loaded(medium: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Decoder, "__init__", None)
    plan = EdgeGenerator.plan(medium)
    with pytest.raises(
        InvalidInputError, match=rf"memory_limit_mb is 10, but .* needs {plan.peak_mib:.1f} MiB"
    ):
        EdgeGenerator.from_pretrained(medium, memory_limit_mb=10)
    for wrong in (0, "100", float("nan")):
        with pytest.raises(
            InvalidInputError, match=f"memory_limit_mb is {wrong!r}, but must be a finite number"
        ):
            EdgeGenerator.from_pretrained(medium, memory_limit_mb=wrong)
    with pytest.raises(InvalidInputError, match="fit was given without memory_limit_mb"):
        EdgeGenerator.from_pretrained(medium, fit=True)


@pytest.mark.filterwarnings("ignore::sabiyarn_edge.planning.memory_plan.MemoryFitWarning")
def test_a_limit_below_what_loading_takes_names_it(medium: Path) -> None:
    plan = EdgeGenerator.plan(medium)
    needed = plan.runtime / 2**20
    for fit in (True, False):
        with pytest.raises(
            InvalidInputError, match=rf"Loading it alone takes {needed:.1f} MiB: allow \d+\."
        ) as error:
            EdgeGenerator.from_pretrained(medium, memory_limit_mb=5, fit=fit)
        allowed = int(str(error.value).split()[-1].strip("."))
        EdgeGenerator.from_pretrained(medium, memory_limit_mb=allowed, fit=fit)


def test_a_limit_counts_the_prefix_cache(medium: Path) -> None:
    alone, pooled = (EdgeGenerator.plan(medium, prefix_cache_mb=pool) for pool in (0, 30))
    assert pooled.peak == alone.peak + 30 * 2**20
    assert "prefix cache" in str(pooled)
    assert "prefix cache" not in str(alone)
    limit = alone.peak_mib + 20
    EdgeGenerator.from_pretrained(medium, memory_limit_mb=limit)
    with pytest.raises(InvalidInputError, match=r"30\.0 the prefix cache: .* a smaller prefix_cache_mb"):
        EdgeGenerator.from_pretrained(medium, memory_limit_mb=limit, prefix_cache_mb=30)


@pytest.mark.parametrize("room", [1, 3], ids=["none", "some"])
def test_sessions_give_way_to_calls(medium: Path, room: int) -> None:
    call = {"max_new_tokens": 4, "eos_token_id": None}
    turns = [list(range(600)), list(range(1000, 1020))]
    free = EdgeGenerator.from_pretrained(medium)
    expected = free.generate(turns[0] + turns[1], **call).generated

    limit = EdgeGenerator.plan(medium).peak_mib + room
    generator = EdgeGenerator.from_pretrained(medium, memory_limit_mb=limit)
    session = generator.session(turns[0])
    session.generate(max_new_tokens=1, eos_token_id=None)
    session.truncate(600)
    generator.generate(list(range(2000, 3020)), **call)  # takes all but `room`
    held = generator.memory_usage()["prefix_cache"]
    assert held <= room * 2**20 and (held > 0 or room == 1)
    assert session.generate(turns[1], **call).generated == expected


def test_a_call_counts_its_mask(medium: Path) -> None:
    plan = EdgeGenerator.plan(medium, max_length=1024)
    generator = EdgeGenerator.from_pretrained(medium, memory_limit_mb=plan.peak_mib + 2.5)
    prompt, call = list(range(1000)), {"max_new_tokens": 2, "eos_token_id": None}
    generator.generate(prompt, **call)
    generator.generate(prompt, attn_mask=sliding_window_mask(50, 1000), **call)  # 1 MB of bool, 1 MB in a run
    with pytest.raises(
        InvalidInputError, match=r"1002 positions in 1 row\(s\): this call needs .* memory_limit_mb is"
    ):
        generator.generate(prompt, attn_mask=prefix_mask(1000), **call)  # all of it in one run


def test_a_call_counts_its_guesses(medium: Path) -> None:
    """201 rows of logits are 3 MiB, and 201 tokens of a run 2 MiB."""
    plan = EdgeGenerator.plan(medium, max_length=1024)
    generator = EdgeGenerator.from_pretrained(medium, memory_limit_mb=plan.peak_mib + 2.5)
    prompt, call = list(range(800)), {"max_new_tokens": 220, "eos_token_id": None}
    generator.generate(prompt, **call)
    with pytest.raises(InvalidInputError, match=r"this call needs .* MiB, but memory_limit_mb is"):
        generator.generate(prompt, prompt_lookup_num_tokens=200, **call)


def test_a_call_leaves_the_prefix_cache_its_memory(medium: Path) -> None:
    plan = EdgeGenerator.plan(medium, max_length=1024)
    limits = {"memory_limit_mb": plan.peak_mib + 17}
    rows = {
        "num_return_sequences": 6,
        "do_sample": True,
        "max_new_tokens": 1000,
    }  # 6 * 1003 positions are 18 MiB
    without = EdgeGenerator.from_pretrained(medium, **limits)
    needed = without._settings.decide([1, 2, 3], None, rows).requests[0].needed_bytes
    assert needed + without._settings.costs.shared <= limits["memory_limit_mb"] * 2**20
    kept = EdgeGenerator.from_pretrained(medium, prefix_cache_mb=16, **limits)
    with pytest.raises(InvalidInputError, match=r"this call needs .* MiB, but memory_limit_mb is"):
        kept.generate([1, 2, 3], **rows)


def test_enough_is_left_as_it_is(medium: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        generator = EdgeGenerator.from_pretrained(medium, memory_limit_mb=500, fit=True)
    assert generator._engine.decoder.window == 1024


def test_fit_takes_a_smaller_chunk_and_then_a_smaller_window(medium: Path) -> None:
    whole = EdgeGenerator.plan(medium)
    assert whole.prefill_chunk == 256
    with pytest.warns(MemoryFitWarning, match="chunks of 128 tokens instead of 256: the plan is"):
        generator = EdgeGenerator.from_pretrained(medium, memory_limit_mb=whole.peak_mib - 1, fit=True)
    assert (generator._engine.decoder.max_prefill_chunk, generator._engine.decoder.window) == (128, 1024)

    least = EdgeGenerator.plan(medium, kv_window=256)
    limit = least.runtime / 2**20 + 1.5  # keys and values of 256 + 128 positions take 1.1
    with pytest.warns(MemoryFitWarning, match="kv_window 256 instead of 1024"):
        generator = EdgeGenerator.from_pretrained(medium, memory_limit_mb=limit, fit=True)
    generator.generate(list(range(200)), max_new_tokens=2, eos_token_id=None)
    assert (generator._engine.decoder.max_prefill_chunk, generator._engine.decoder.window) == (16, 256)
    assert generator.memory_usage()["kv_cache"] == 256 * 3072


def test_a_prompt_that_cannot_fit_is_refused_with_both_numbers(medium: Path) -> None:
    limit = EdgeGenerator.plan(medium, max_length=320).peak_mib + 1
    generator = EdgeGenerator.from_pretrained(medium, max_length=320, memory_limit_mb=limit)
    call = {"max_new_tokens": 20, "eos_token_id": None, "do_sample": True}
    with pytest.raises(
        InvalidInputError,
        match=rf"320 positions in 64 row\(s\): this call needs [\d.]+ MiB, but memory_limit_mb is {limit:g}",
    ):
        generator.generate(list(range(300)), num_return_sequences=64, **call)
    assert generator.memory_usage()["kv_cache"] == 0
    assert len(generator.generate([1, 2, 3], **call).sequences) == 1


@pytest.mark.parametrize("fit", [False, True])
@pytest.mark.parametrize("overflow", ["error", "slide"])
@pytest.mark.parametrize(("rows", "length"), [(None, 40), (None, 257), (1, 150), (8, 20), (8, 150), (3, 400)])
def test_what_loading_accepts_calls_are_given(
    medium: Path, rows: int | None, length: int, overflow: str, fit: bool
) -> None:
    """The least limit that loading accepts, or half of the scratch memory under it."""
    shape = {"max_length": length, "batch": rows or 1, "guesses": False}
    plan = memory_plan.plan_memory(medium, **shape, max_prefill_chunk=16 if fit else 256)
    limits = {"max_batch_size": rows, "max_length": length, "memory_limit_mb": plan.peak / 2**20 + 1e-5}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MemoryFitWarning)
        generator = EdgeGenerator.from_pretrained(medium, **limits, overflow=overflow, fit=fit)
    assert generator._engine.decoder.max_prefill_chunk == plan.prefill_chunk
    prompts = [[(7 * at + row) % 4000 for at in range(length - 1)] for row in range(rows or 1)]
    new = 9 if overflow == "slide" else 1
    found = generator.generate(prompts, max_new_tokens=new, eos_token_id=None)
    assert [len(ids) for ids in found.generated] == [new] * len(prompts)


@pytest.mark.parametrize(
    ("prompt", "options", "remedy"),
    [
        (9, {"num_return_sequences": 64, "do_sample": True}, "Give fewer beams or returned sequences."),
        (9, {"prompt_lookup_num_tokens": 250}, "Give fewer guesses, or fewer new tokens."),
        (300, {"do_sample": True, "top_k": 0}, "Give a shorter prompt."),
    ],
    ids=["rows", "guesses", "drawing"],
)
def test_a_refused_call_is_told_what_helps(
    medium: Path, prompt: int, options: dict[str, Any], remedy: str
) -> None:
    """What it is told to give fewer of is enough."""
    limit = memory_plan.plan_memory(medium, max_length=320, guesses=False).peak / 2**20 + 0.01
    generator = EdgeGenerator.from_pretrained(medium, max_length=320, memory_limit_mb=limit)
    with pytest.raises(InvalidInputError) as caught:
        generator.generate(list(range(prompt)), max_new_tokens=320 - prompt, **options)
    assert str(caught.value).endswith(f"but memory_limit_mb is {limit:g}. {remedy}")


def test_a_batch_that_does_not_fit_at_once_waits(medium: Path) -> None:
    prompts = [[(11 * i + row) % 4000 for i in range(200 + row)] for row in range(12)]
    call = {"max_new_tokens": 9, "eos_token_id": None}
    free = EdgeGenerator.from_pretrained(medium, max_length=320)
    limit = EdgeGenerator.plan(medium, max_length=320).peak_mib + 1
    limited = EdgeGenerator.from_pretrained(medium, max_length=320, memory_limit_mb=limit)
    most = 0
    scheduler = limited._engine._scheduler

    def count(*_: object) -> bool:
        nonlocal most
        most = max(most, len(scheduler.live))
        return False

    found = limited.generate(prompts, stopping_criteria=count, **call)
    assert found.generated == free.generate(prompts, **call).generated
    assert 1 <= most < len(prompts)
    needed = limited._settings.decide(prompts, None, call).requests[-1].needed_bytes
    assert (most - 1) * needed <= limited._engine._limit_bytes  # as many as fit, the last one perhaps larger


def test_the_command_prints_the_plan(medium: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = EdgeGenerator.plan(medium, max_length=700, batch=2, beams=3, prompt_length=300)
    arguments = ["plan", str(medium), "--max-length", "700", "--batch", "2", "--beams", "3"]
    assert main([*arguments, "--prompt-length", "300", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == plan.to_dict()
    assert main(["plan", str(medium)]) == 0
    text = capsys.readouterr().out
    assert "KV cache" in text and f"{EdgeGenerator.plan(medium).peak_mib:.1f} MiB" in text


def test_generate_takes_a_limit(medium: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["generate", "--model", str(medium), "--ids", "1 2 3", "--max-new-tokens", "2"]
    assert main([*arguments, "--memory-limit", "10"]) == 2
    assert "--memory-limit is 10" in capsys.readouterr().err
    limit = EdgeGenerator.plan(medium).peak_mib - 0.5
    assert main([*arguments, "--memory-limit", f"{limit:.1f}", "--fit"]) == 0
    assert "warning: prefill in chunks of" in capsys.readouterr().err
