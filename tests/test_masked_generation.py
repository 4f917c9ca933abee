"""generate(attn_mask=..., attention_mask=...) against the torch model's, which computes every step anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sabiyarn_edge import EdgeGenerator, document_mask, prefix_mask, sliding_window_mask
from sabiyarn_edge.engine.prompt_mask import PromptMask
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.modeling import GPTJXForCausalLM
from tests.export.models import export_tiny

P = 24
"""Tokens of a prompt."""
NEW = 12


@pytest.fixture(scope="module")
def generator(text_model: Path) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(text_model, num_threads=1)


@pytest.fixture(scope="module")
def torch_model(text_model: Path) -> GPTJXForCausalLM:
    return GPTJXForCausalLM.from_pretrained(text_model.parent / "checkpoint")


def prompts(*lengths: int, seed: int = 3) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 97, length).tolist() for length in lengths]


def random_mask(*shape: int, seed: int = 1) -> np.ndarray:
    """Any token may look ahead."""
    mask = np.random.default_rng(seed).random(shape) < 0.5
    mask[..., 1] = True
    return mask


def blocks(total: int, size: int) -> np.ndarray:
    """Bidirectional in blocks of `size` tokens, causal between them."""
    block = np.arange(total) // size
    return block[None] <= block[:, None]


def expected(
    model: GPTJXForCausalLM, ids: list[list[int]], mask: Any, padding: Any = None, **options: Any
) -> list[list[int]]:
    return model.generate(
        torch.tensor(ids),
        attn_mask=torch.as_tensor(mask),
        attention_mask=None if padding is None else torch.as_tensor(padding),
        use_cache=False,
        **options,
    ).tolist()


IDS = prompts(P)[0]
MASKS = {
    "documents": document_mask(IDS, IDS[9]),
    "bidirectional": prefix_mask(P),
    "prefix": prefix_mask(8, P),
    "window": sliding_window_mask(5, P, num_sink_tokens=1),
    "blocks": blocks(P, 5),
    "any": random_mask(P, P),
    "any-4d": random_mask(1, 1, P, P, seed=2),
    "integers": random_mask(1, P, P).astype(np.int32),
    "additive": np.where(random_mask(P, P), np.random.default_rng(4).normal(size=(P, P)), -np.inf),
    "finfo-min": np.where(blocks(P, 5), 0, np.finfo(np.float32).min).astype(np.float32),
}


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_greedy_equals_torch(
    generator: EdgeGenerator, torch_model: GPTJXForCausalLM, mask: np.ndarray
) -> None:
    result = generator.generate(IDS, attn_mask=mask, max_new_tokens=NEW)
    assert result.sequences.tolist() == expected(torch_model, [IDS], mask, max_new_tokens=NEW)
    assert result.timings.prefill_tokens == P


def test_a_causal_mask_changes_nothing_and_others_do(generator: EdgeGenerator) -> None:
    plain = generator.generate(IDS, max_new_tokens=NEW).sequences
    causal = generator.generate(IDS, attn_mask=np.tri(P, dtype=bool), max_new_tokens=NEW).sequences
    np.testing.assert_array_equal(causal, plain)
    other = generator.generate(IDS, attn_mask=prefix_mask(P), max_new_tokens=NEW).sequences
    assert (other != plain).any()


@pytest.mark.parametrize("chunk", [1, 4, 7])
@pytest.mark.parametrize("name", ["documents", "blocks", "additive", "window", "finfo-min"])
def test_chunked_prefill_changes_nothing(
    generator: EdgeGenerator,
    torch_model: GPTJXForCausalLM,
    chunk: int,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(generator._engine.decoder, "max_prefill_chunk", chunk)
    result = generator.generate(IDS, attn_mask=MASKS[name], max_new_tokens=NEW)
    assert result.sequences.tolist() == expected(torch_model, [IDS], MASKS[name], max_new_tokens=NEW)


@pytest.mark.parametrize("shape", [(3, P, P), (3, 1, P, P), (1, P, P), (P, P)])
def test_batches(generator: EdgeGenerator, torch_model: GPTJXForCausalLM, shape: tuple[int, ...]) -> None:
    ids, mask = prompts(P, P, P), random_mask(*shape)
    result = generator.generate(ids, attn_mask=mask, max_new_tokens=NEW)
    assert result.sequences.tolist() == expected(torch_model, ids, mask, max_new_tokens=NEW)


def test_rows_of_unequal_length_with_and_without_a_mask(
    generator: EdgeGenerator, torch_model: GPTJXForCausalLM
) -> None:
    ids = prompts(5, P, 40, 1)
    masks = [random_mask(5, 5), None, blocks(40, 9), [[True]]]
    result = generator.generate(ids, attn_mask=masks, max_new_tokens=NEW)
    for row, mask, sequence, length in zip(ids, masks, result.sequences, result.lengths, strict=True):
        causal = np.tri(len(row), dtype=bool)
        alone = expected(torch_model, [row], causal if mask is None else mask, max_new_tokens=NEW)
        assert [sequence[:length].tolist()] == alone


@pytest.mark.parametrize(
    "options",
    [
        {"num_beams": 4, "num_return_sequences": 3},
        {"num_beams": 3, "eos_token_id": [11, 40, 77], "length_penalty": 1.3, "early_stopping": True},
        {"do_sample": True, "temperature": 2.0, "num_return_sequences": 3, "seed": 5},
    ],
    ids=["beams", "ends", "samples"],
)
def test_forks_take_their_prompts_mask_along(
    generator: EdgeGenerator, torch_model: GPTJXForCausalLM, options: dict[str, Any]
) -> None:
    ids, mask = prompts(P, P), random_mask(2, P, P)
    result = generator.generate(ids, attn_mask=mask, max_new_tokens=NEW, **options)
    assert result.sequences.tolist() == expected(torch_model, ids, mask, max_new_tokens=NEW, **options)


def test_rows_that_end_leave_the_others_alone(
    generator: EdgeGenerator, torch_model: GPTJXForCausalLM
) -> None:
    ids, mask = prompts(P, P, P), random_mask(3, P, P)
    free = generator.generate(ids, attn_mask=mask, max_new_tokens=NEW).generated
    end = next(token for token in free[0] if token not in free[1])
    options = {"max_new_tokens": NEW, "eos_token_id": end, "pad_token_id": 0}
    result = generator.generate(ids, attn_mask=mask, **options)
    assert result.sequences.tolist() == expected(torch_model, ids, mask, **options)
    assert len(set(result.lengths)) > 1


def test_the_kv_cache_grows_on_the_way(tmp_path: Path) -> None:
    folder = export_tiny(tmp_path, {"block_size": 400}, kv_cache_dtype="float32", verify=False).folder
    model = GPTJXForCausalLM.from_pretrained(tmp_path / "checkpoint")
    generator = EdgeGenerator.from_pretrained(folder, num_threads=1)
    ids, mask = prompts(250, 250), random_mask(2, 250, 250)
    result = generator.generate(ids, attn_mask=mask, max_new_tokens=20)
    assert result.sequences.tolist() == expected(model, ids, mask, max_new_tokens=20)
    # 250 and 20 positions do not fit into 256; a ring of 400 positions has 448 slots, in whole tiles of 64.
    assert generator.memory_usage()["kv_cache"] == 2 * 448 * generator.memory_usage()["kv_bytes_per_position"]


def test_a_mask_is_given_for_the_tokens_at_hand_only(
    text_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1)
    decoder = generator._engine.decoder
    shapes: list[tuple[int, int]] = []
    write = PromptMask.write

    def noted(mask: PromptMask, out: Any, causal: Any) -> None:
        shapes.append(out.shape)
        write(mask, out, causal)

    monkeypatch.setattr(PromptMask, "write", noted)
    monkeypatch.setattr(decoder, "max_prefill_chunk", 4)
    generator.generate([IDS, IDS[:6]], attn_mask=[MASKS["window"], None], max_new_tokens=3)
    assert shapes == [*((4, end) for end in range(4, P + 1, 4)), (1, P + 1), (1, P + 2)]
    assert generator.memory_usage()["mask_cache"] == 0  # one token at a time needs no causal mask


@pytest.mark.usefixtures("eager_guesses")
def test_the_mask_cache_gives_the_rows_of_guesses(text_model: Path, torch_model: GPTJXForCausalLM) -> None:
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1)
    ids, mask = IDS[:8] * 3, random_mask(P, P)
    result = generator.generate(ids, attn_mask=mask, max_new_tokens=NEW, prompt_lookup_num_tokens=4)
    assert result.sequences.tolist() == expected(torch_model, [ids], mask, max_new_tokens=NEW)
    assert result.timings.num_guesses > 0
    assert generator.memory_usage()["mask_cache"] == 64 * 64


# --- padding


@pytest.mark.parametrize("masked", [False, True], ids=["padding-alone", "with-attn-mask"])
def test_padding_is_left_out(text_model: Path, torch_model: GPTJXForCausalLM, masked: bool) -> None:
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1)
    ids, padding = prompts(P, P, P), np.ones((3, P), np.int64)
    padding[0, :7] = padding[1, 20:] = padding[2, 3:6] = 0
    mask = random_mask(3, P, P) if masked else np.tri(P, dtype=bool)
    mask[..., np.arange(P), np.arange(P)] = True
    result = generator.generate(
        ids, attn_mask=mask if masked else None, attention_mask=padding, max_new_tokens=NEW
    )
    assert result.prompt_lengths == [P - 7, P - 4, P - 3]
    rows = [
        expected(
            torch_model, ids[i : i + 1], mask[i] if masked else mask, padding[i : i + 1], max_new_tokens=NEW
        )
        for i in range(3)
    ]
    assert [[ids[:n].tolist()] for ids, n in zip(result.sequences, result.lengths, strict=True)] == rows
    assert (generator.memory_usage()["mask_buffer"] > 0) == masked  # padding alone needs no mask


def test_a_prompt_may_be_longer_than_the_positions_with_its_padding(generator: EdgeGenerator) -> None:
    padded, padding = [0] * 90 + IDS, [[0] * 90 + [1] * P]
    result = generator.generate(padded, attention_mask=padding, max_new_tokens=NEW)
    np.testing.assert_array_equal(result.sequences, generator.generate(IDS, max_new_tokens=NEW).sequences)


# --- windows and float16


@pytest.mark.parametrize("sinks", [0, 3])
def test_what_leaves_the_window_is_no_longer_seen(
    text_model: Path, torch_model: GPTJXForCausalLM, sinks: int
) -> None:
    window, new = 30, 40
    generator = EdgeGenerator.from_pretrained(
        text_model, num_threads=1, kv_window=window, num_sink_tokens=sinks
    )
    mask = random_mask(P, P)
    sequence = generator.generate(IDS, attn_mask=mask, max_new_tokens=new).sequences[0]
    total = len(sequence) - 1
    query, key = np.ogrid[:total, :total]
    sees = (key <= query) & ((key < sinks) | (key > query - (window - sinks)))
    sees[P:, :P] &= mask[-1]
    sees[:P, :P] = mask
    with torch.no_grad():
        logits = torch_model(torch.from_numpy(sequence[None, :-1]), attn_mask=torch.from_numpy(sees)).logits
    assert sequence[P:].tolist() == logits[0, P - 1 :].argmax(dim=-1).tolist()


def test_float16_keys_and_values(tmp_path: Path) -> None:
    """Against torch's float16 cache: the same values are rounded, and where two tokens are near, either may win."""
    folder = export_tiny(tmp_path, kv_cache_dtype="float16", verify=False).folder
    model = GPTJXForCausalLM.from_pretrained(tmp_path / "checkpoint")
    mask = random_mask(P, P)
    generator = EdgeGenerator.from_pretrained(folder, num_threads=1)
    sequence = generator.generate(IDS, attn_mask=mask, max_new_tokens=NEW).sequences[0]
    sees = np.tri(len(sequence) - 1, dtype=bool)
    sees[P:, :P] &= mask[-1]
    sees[:P, :P] = mask
    with torch.no_grad():
        logits = model(torch.from_numpy(sequence[None, :-1]), attn_mask=torch.from_numpy(sees)).logits
    wanted = logits[0, P - 1 :].numpy()
    loss = wanted.max(axis=1) - wanted[np.arange(NEW), sequence[P:]]
    assert (loss <= 4e-2).all()  # twice the bound of test_session.py


# --- the rest of the interface


def test_streams_and_texts(generator: EdgeGenerator) -> None:
    text = "Gbogbo ènìyàn"
    count = len(generator.tokenizer.encode(text))
    result = generator.generate(text, attn_mask=prefix_mask(count), max_new_tokens=NEW)
    tokens = list(generator.stream(text, attn_mask=prefix_mask(count), max_new_tokens=NEW))
    assert "".join(token.text for token in tokens) == result.text
    assert (generator.generate(text, max_new_tokens=NEW).sequences != result.sequences).any()


def test_a_later_prompt_does_not_continue_from_masked_keys(generator: EdgeGenerator) -> None:
    """What a mask let in is part of keys and values; and a masked prompt does not continue from others'."""
    generator.free_kv_cache()
    plain = generator.generate(IDS, max_new_tokens=NEW).sequences
    masked = generator.generate(IDS, attn_mask=MASKS["any"], max_new_tokens=NEW)
    assert masked.timings.prefill_tokens == P
    after = generator.generate(IDS, max_new_tokens=NEW)
    assert after.timings.prefill_tokens == P
    np.testing.assert_array_equal(after.sequences, plain)


def test_time_runs_out_during_prefill(generator: EdgeGenerator) -> None:
    result = generator.generate(IDS, attn_mask=MASKS["window"], max_time=1e-9)
    assert result.finish_reasons == ["time"]
    assert result.sequences.tolist() == [IDS]


def test_memory_is_taken_on_first_use_and_given_back(text_model: Path) -> None:
    generator = EdgeGenerator.from_pretrained(text_model, num_threads=1)

    def masks() -> list[int]:
        usage = generator.memory_usage()
        return [usage[name] for name in ("mask_buffer", "mask_cache")]

    plain = generator.generate(IDS, max_new_tokens=NEW).sequences
    assert masks() == [0, 0]
    generator.generate(IDS, attn_mask=MASKS["any"], max_new_tokens=NEW)
    assert masks() == [4 * 1024, 0]  # 24 x 24 float32, in a power of two
    generator.free_kv_cache()
    assert masks() == [0, 0]
    assert generator.memory_usage()["kv_cache"] == 0
    np.testing.assert_array_equal(generator.generate(IDS, max_new_tokens=NEW).sequences, plain)


def test_a_mask_may_speak_of_as_many_tokens_as_the_window_holds(text_model: Path) -> None:
    first = [
        EdgeGenerator.from_pretrained(text_model, num_threads=1, kv_window=window)
        .generate(IDS, attn_mask=MASKS["any"], max_new_tokens=1)
        .sequences
        for window in (None, P)
    ]
    np.testing.assert_array_equal(*first)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"attn_mask": np.ones((P, P + 1), bool)}, r"attn_mask has shape \(24, 25\)"),
        ({"attn_mask": np.eye(P, k=1, dtype=bool)}, "hides every key from token 23 of row 0"),
        ({"attention_mask": np.ones(P + 1, int)}, r"attention_mask has shape \(.*25\)"),
        (
            {"attn_mask": MASKS["any"], "kv_window": P - 1},
            "speaks of all 24 tokens of the prompt, but kv_window is 23",
        ),
    ],
)
def test_refusals_come_before_anything_runs(text_model: Path, options: dict[str, Any], message: str) -> None:
    options = dict(options)
    generator = EdgeGenerator.from_pretrained(
        text_model, num_threads=1, kv_window=options.pop("kv_window", None)
    )
    with pytest.raises(InvalidInputError, match=message):
        generator.generate(IDS, **options)
    usage = generator.memory_usage()
    assert usage["mask_buffer"] == usage["kv_cache"] == 0
