"""generate() of the torch model: greedy against the oracle, everything else against itself without cache or alone."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from sabiyarn_edge.errors import InvalidInputError, NumericalError
from sabiyarn_edge.options.generation_config import GenerationConfig, OptionWarning
from tests.modeling.tiny import SHAPES, random_ids, tiny_model, tiny_oracle
from tests.sliding_oracle import feed, generate_sliding

INF = float("inf")
SAMPLING = {"do_sample": True, "temperature": 1.3, "top_k": 20, "top_p": 0.95, "repetition_penalty": 1.2}


# --- greedy -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
def test_greedy_equals_the_oracle(shape, use_cache):
    model, oracle = tiny_model(**shape), tiny_oracle(**shape)
    ids = random_ids(model, 1, 4)
    sequences = model.generate(ids, max_new_tokens=20, use_cache=use_cache)
    assert sequences.dtype == torch.int64
    assert sequences.tolist() == [oracle.greedy(ids[0].tolist(), 20)]


def test_greedy_to_the_last_position():
    model, oracle = tiny_model(block_size=33), tiny_oracle(block_size=33)
    ids = random_ids(model, 1, 3)
    assert model.generate(ids, max_new_tokens=30).tolist() == [oracle.greedy(ids[0].tolist(), 30)]


def test_a_float16_cache_generates_too():
    model = tiny_model(kv_cache_dtype="float16")
    ids = random_ids(model, 1, 4)
    agree = model.generate(ids, max_new_tokens=20) == tiny_model().generate(ids, max_new_tokens=20)
    assert agree.float().mean() > 0.7  # one near-tie may turn the rest
    assert model.memory_usage()["kv_cache"] == 2 * 2 * 64 * 16 * 2


# --- batches ------------------------------------------------------------------------------------------------

LENGTHS = (3, 11, 7)


def ragged(model):
    return [random_ids(model, 1, length, seed=length)[0].tolist() for length in LENGTHS]


@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
@pytest.mark.parametrize("options", [{}, SAMPLING], ids=["greedy", "sampling"])
def test_rows_of_unequal_length_give_what_each_gives_alone(use_cache, options):
    model = tiny_model(max_batch_size=3)
    prompts, options = ragged(model), {"max_new_tokens": 12, **options}
    seeds = [5, 6, 7]
    together = model.generate(
        prompts, seed=seeds, use_cache=use_cache, return_dict_in_generate=True, **options
    )
    assert together.lengths == [length + 12 for length in LENGTHS]
    for row, prompt in enumerate(prompts):
        alone = model.generate([prompt], seed=seeds[row], use_cache=not use_cache, **options)[0].tolist()
        assert together.sequences[row].tolist() == alone + [0] * (max(LENGTHS) - len(prompt))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_left_out_of_the_prompt(side):
    model = tiny_model(max_batch_size=3)
    prompts, longest = ragged(model), max(LENGTHS)
    ids, mask = torch.full((3, longest), 96), torch.zeros(3, longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        where = slice(longest - len(prompt), None) if side == "left" else slice(0, len(prompt))
        ids[row, where] = torch.tensor(prompt)
        mask[row, where] = 1
    padded = model.generate(ids, attention_mask=mask, max_new_tokens=9)
    assert torch.equal(padded, model.generate(prompts, max_new_tokens=9))


def test_rows_that_end_are_dropped_and_filled_up():
    model = tiny_model(max_batch_size=3)
    prompts = ragged(model)
    free = [model.generate([prompt], max_new_tokens=12)[0].tolist() for prompt in prompts]
    eos = free[0][LENGTHS[0] + 2]  # what row 0 gives as its third new token
    output = model.generate(
        prompts, max_new_tokens=12, eos_token_id=eos, pad_token_id=96, return_dict_in_generate=True
    )
    for row, (prompt, own) in enumerate(zip(prompts, free, strict=True)):
        new = own[len(prompt) :]
        expected = prompt + (new[: new.index(eos) + 1] if eos in new else new)
        got = output.sequences[row].tolist()
        assert got[: output.lengths[row]] == expected
        assert set(got[output.lengths[row] :]) <= {96}
        assert output.finish_reasons[row] == ("eos" if eos in new else "length")
    assert output.lengths[0] <= LENGTHS[0] + 3


# --- sampling -----------------------------------------------------------------------------------------------


def test_draws_do_not_depend_on_the_cache():
    model = tiny_model(max_batch_size=2)
    options = {"max_new_tokens": 15, "num_return_sequences": 3, "seed": 11, **SAMPLING}
    prompts = random_ids(model, 2, 6)
    cached = model.generate(prompts, use_cache=True, **options)
    assert cached.shape == (6, 21)
    assert torch.equal(cached, model.generate(prompts, use_cache=False, **options))
    assert len({tuple(row) for row in cached.tolist()}) == 6
    assert not torch.equal(cached, model.generate(prompts, **{**options, "seed": 12}))


def test_scores_are_log_probabilities():
    model, oracle = tiny_model(), tiny_oracle()
    ids = random_ids(model, 1, 4)
    output = model.generate(ids, max_new_tokens=5, output_scores=True, return_dict_in_generate=True)
    sequence = output.sequences[0].tolist()
    logits = oracle.logits(sequence)
    log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    expected = [log_probabilities[t - 1, sequence[t]] for t in range(4, 9)]
    np.testing.assert_allclose(output.scores[0], expected, atol=1e-4)
    assert model.generate(ids, max_new_tokens=5, return_dict_in_generate=True).scores is None


# --- beams --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length_penalty", [-1.0, 0.0, 1.7])
def test_beams_are_scored_by_the_sum_of_their_log_probabilities(length_penalty):
    model, oracle = tiny_model(max_batch_size=3), tiny_oracle()
    prompts = ragged(model)
    options = {
        "num_beams": 4,
        "num_return_sequences": 3,
        "length_penalty": length_penalty,
        "max_new_tokens": 10,
        "return_dict_in_generate": True,
    }
    output = model.generate(prompts, **options)
    for row in range(9):
        start, end = LENGTHS[row // 3], output.lengths[row]
        sequence = output.sequences[row, :end].tolist()
        assert sequence[:start] == prompts[row // 3]
        logits = oracle.logits(sequence)
        log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        total = sum(log_probabilities[t - 1, sequence[t]] for t in range(start, end))
        assert output.sequences_scores[row] == pytest.approx(
            total / (end - start) ** length_penalty, abs=1e-3
        )
    assert torch.equal(output.sequences, model.generate(prompts, use_cache=False, **options).sequences)
    for index, prompt in enumerate(prompts):
        alone = model.generate([prompt], **options)
        rows = output.sequences[3 * index : 3 * index + 3, : alone.sequences.shape[1]]
        assert torch.equal(rows, alone.sequences)


def test_without_beams_there_are_no_sequence_scores():
    model = tiny_model()
    assert model.generate([[1]], max_new_tokens=2, return_dict_in_generate=True).sequences_scores is None


# --- masks --------------------------------------------------------------------------------------------------


def prefix_lm(count, prefix):
    mask = np.tri(count, dtype=bool)
    mask[:prefix, :prefix] = True
    return mask


def greedy_with_mask(oracle, ids, mask, new):
    """Token by token over the full sequence, with the mask continued by hand."""
    out = list(ids)
    for _ in range(new):
        extended = np.full((len(out), len(out)), -INF)
        for query in range(len(out)):
            for key in range(len(out)):
                seen = mask[min(query, len(ids) - 1), key] if key < len(ids) else key <= query
                extended[query, key] = 0.0 if seen else -INF
        out.append(int(np.argmax(oracle.logits(out, mask=extended)[-1])))
    return out


@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
@pytest.mark.parametrize("form", ["bool", "int", "additive"])
def test_attn_mask_is_continued(use_cache, form):
    model, oracle = tiny_model(max_batch_size=2), tiny_oracle()
    ids = random_ids(model, 2, 8)
    masks = np.stack([prefix_lm(8, 8), prefix_lm(8, 5)])
    masks[1, :, :2] = np.eye(8, dtype=bool)[:, :2]  # new tokens of row 1 do not see its first two
    given = torch.from_numpy(masks)
    given = {"bool": given, "int": given.long()[:, None], "additive": given.float().log()}[form]
    sequences = model.generate(ids, attn_mask=given, max_new_tokens=10, use_cache=use_cache)
    assert sequences.tolist() == [
        greedy_with_mask(oracle, ids[row].tolist(), masks[row], 10) for row in range(2)
    ]
    assert sequences.tolist() != model.generate(ids, max_new_tokens=10).tolist()


def test_a_causal_attn_mask_changes_nothing():
    model = tiny_model(max_batch_size=2)
    ids = random_ids(model, 2, 8)
    causal = torch.ones(8, 8, dtype=torch.bool).tril()
    assert torch.equal(
        model.generate(ids, attn_mask=causal, max_new_tokens=10), model.generate(ids, max_new_tokens=10)
    )


def test_attn_mask_with_padding():
    model = tiny_model(max_batch_size=2)
    ids, mask = random_ids(model, 2, 8), torch.from_numpy(prefix_lm(8, 6))
    padding = torch.tensor([[0, 0, 0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1, 0, 0]])
    sequences = model.generate(ids, attn_mask=mask, attention_mask=padding, max_new_tokens=6)
    for row, kept in enumerate((slice(3, 8), slice(0, 6))):
        alone = model.generate(ids[row : row + 1, kept], attn_mask=mask[kept, kept], max_new_tokens=6)
        assert sequences[row, : alone.shape[1]].tolist() == alone[0].tolist()


# --- past the last position ---------------------------------------------------------------------------------

BLOCK = 24
MODES = {
    "greedy": {},
    "penalized": {"repetition_penalty": 1.3, "no_repeat_ngram_size": 3},
    "sampled": {"do_sample": True, "temperature": 3.0, "num_return_sequences": 2},
    "beams": {"num_beams": 3, "length_penalty": 1.2},
}


def rows_of(output):
    """Token ids of each row, without what fills it up."""
    return [row[:n].tolist() for row, n in zip(output.sequences, output.lengths, strict=True)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("keep", [0, 5])
@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
def test_generation_goes_on_past_the_last_position(mode, keep, use_cache):
    model = tiny_model(block_size=BLOCK, max_batch_size=4)
    prompts = [random_ids(model, length, seed=length).tolist() for length in (3, BLOCK - 1, BLOCK, 2 * BLOCK)]
    options = {"max_new_tokens": 40, **MODES[mode]}
    seeds = [11, 12, 13, 14]
    expected = generate_sliding(model, prompts, keep=keep, seeds=seeds, **options)
    output = model.generate(
        prompts,
        keep_tokens=keep,
        seed=seeds if "do_sample" in options else None,
        use_cache=use_cache,
        return_dict_in_generate=True,
        **options,
    )
    assert rows_of(output) == expected
    assert set(output.finish_reasons) == {"length"}


def test_without_any_option_256_tokens_come_whatever_the_positions():
    model = tiny_model(block_size=BLOCK)
    assert model.generate([[1, 2, 3]]).shape == (1, 3 + 256)
    assert model.generate([[1, 2, 3]], max_length=100).shape == (1, 100)
    assert model.memory_usage()["kv_cache"] == 2 * 2 * BLOCK * 16 * 4  # as much as BLOCK positions take


def test_a_slide_runs_the_newer_half_again_and_no_other_step_does():
    model, runs = tiny_model(block_size=BLOCK), []
    model.transformer.register_forward_pre_hook(lambda _, inputs: runs.append(inputs[0].shape[1]))
    model.generate([1, 2, 3], max_new_tokens=5 * BLOCK)
    assert len(runs) == 5 * BLOCK
    slides = (3 + 5 * BLOCK - 1 - BLOCK + BLOCK // 2 - 1) // (BLOCK // 2)
    assert [length for length in runs if length > 1] == [3] + [BLOCK // 2 + 1] * slides


@pytest.mark.parametrize("use_cache", [True, False], ids=["cached", "uncached"])
def test_a_masked_prompt_slides(use_cache):
    model, oracle = tiny_model(block_size=BLOCK), tiny_oracle(block_size=BLOCK)
    text, mask = random_ids(model, 9).tolist(), prefix_lm(9, 6)
    mask[:, 2] = False
    found = model.generate(text, attn_mask=mask, max_new_tokens=40, keep_tokens=2, use_cache=use_cache)
    expected = list(text)
    for _ in range(40):
        kept, _ = feed(range(len(expected)), BLOCK, 2)
        seen = np.full((len(kept), len(kept)), -INF)
        for query, at in enumerate(kept):
            for key, other in enumerate(kept):
                if mask[min(at, 8), other] if other < 9 else other <= at:
                    seen[query, key] = 0
        expected.append(int(np.argmax(oracle.logits([expected[at] for at in kept], mask=seen)[-1])))
    assert found.tolist() == [expected]


def test_a_prompt_that_is_cut():
    model = tiny_model(block_size=BLOCK, max_batch_size=2)
    long, short = random_ids(model, 50).tolist(), random_ids(model, 6).tolist()
    options = {"max_new_tokens": 8, "return_dict_in_generate": True}
    cut = long[:4] + long[-(BLOCK - 8 - 4) :]
    expected = model.generate([cut, short], overflow="error", **options)
    output = model.generate([long, short], overflow="truncate_prompt", keep_tokens=4, **options)
    assert rows_of(output) == rows_of(expected)
    assert (output.truncated_tokens, expected.truncated_tokens) == ([50 - len(cut), 0], [0, 0])

    mask = np.tri(50, dtype=bool)
    mask[49, 48] = False
    kept = [*range(4), *range(50 - (BLOCK - 12), 50)]
    expected = model.generate(cut, attn_mask=mask[np.ix_(kept, kept)], **options)
    output = model.generate(long, attn_mask=mask, overflow="truncate_prompt", keep_tokens=4, **options)
    assert rows_of(output) == rows_of(expected)


def test_a_cut_prompt_leaves_half_the_positions_when_no_number_is_given():
    model = tiny_model(block_size=BLOCK)
    options = {"overflow": "truncate_prompt", "return_dict_in_generate": True}
    assert model.generate([1] * 50, **options).truncated_tokens == [50 - BLOCK // 2]
    assert model.generate([1] * 50, max_length=20, **options).lengths == [20]


# --- what people have ---------------------------------------------------------------------------------------

IDS = [5, 6, 7, 8]


@pytest.mark.parametrize(
    "given",
    [
        IDS,
        tuple(IDS),
        [IDS],
        np.array(IDS),
        np.array([IDS], np.uint16),
        torch.tensor(IDS),
        torch.tensor([IDS], dtype=torch.int32),
        [torch.tensor(IDS)],
        [torch.tensor(token) for token in IDS],
        {"input_ids": IDS},
        {"input_ids": torch.tensor([IDS]), "attention_mask": torch.ones(1, 4, dtype=torch.long)},
        {"input_ids": [0, *IDS], "attention_mask": [0, 1, 1, 1, 1]},
    ],
    ids=lambda given: f"{type(given).__name__}",
)
def test_prompts_in_any_form(given):
    model = tiny_model()
    sequences = model.generate(given, max_new_tokens=6)
    assert sequences.tolist() == [tiny_oracle().greedy(IDS, 6)]
    assert (sequences.dtype, sequences.device) == (torch.int64, torch.device("cpu"))


def test_encodings_of_hugging_face_tokenizers():
    transformers = pytest.importorskip("transformers")
    model = tiny_model(max_batch_size=2)
    prompts = [[1, 2, 3], [4, 5, 6, 7, 8]]
    expected = model.generate(prompts, max_new_tokens=6)
    ragged = {"input_ids": prompts, "attention_mask": [[1] * 3, [1] * 5]}
    padded = {
        "input_ids": torch.tensor([[0, 0, 1, 2, 3], prompts[1]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1] * 5]),
    }
    for content in (ragged, padded):
        encoding = transformers.BatchEncoding(content)
        assert torch.equal(model.generate(encoding, max_new_tokens=6), expected)
        assert torch.equal(model.generate(**encoding, max_new_tokens=6), expected)


def test_what_else_an_encoding_holds_is_named_and_left_out():
    model, encoding = tiny_model(), {"input_ids": [IDS], "token_type_ids": [[0] * 4]}
    expected = [tiny_oracle().greedy(IDS, 3)]
    with pytest.warns(OptionWarning, match=r"left out token_type_ids\.$") as caught:
        assert model.generate(**encoding, max_new_tokens=3).tolist() == expected
    assert caught[0].filename == __file__
    with pytest.warns(OptionWarning, match=r"left out labels, token_type_ids\.$"):
        assert model.generate({**encoding, "labels": [IDS]}, max_new_tokens=3).tolist() == expected


def test_a_text_needs_a_tokenizer_only():
    tokenizer = SimpleNamespace(encode=lambda text, **_: [ord(letter) - 97 for letter in text])
    sequences = tiny_model().generate("fghi", tokenizer=tokenizer, max_new_tokens=6)
    assert sequences.tolist() == [tiny_oracle().greedy(IDS, 6)]


def test_masks_in_any_form():
    model = tiny_model(max_batch_size=2)
    prompts, mask = [IDS, [1, 2, 3]], prefix_lm(4, 3)
    expected = model.generate(IDS, attn_mask=mask, max_new_tokens=5)[0].tolist()
    for given in (
        [torch.from_numpy(mask), None],
        lambda n: torch.from_numpy(prefix_lm(n, 3 if n == 4 else 1)),
    ):
        assert model.generate(prompts, attn_mask=given, max_new_tokens=5)[0].tolist() == expected
    additive = torch.zeros(4, 4, dtype=torch.bfloat16).masked_fill(~torch.from_numpy(mask), -INF)
    assert model.generate(IDS, attn_mask=additive, max_new_tokens=5)[0].tolist() == expected


def test_keys_beyond_float16_are_told_and_do_not_stay_in_the_cache():
    model = tiny_model(kv_cache_dtype="float16")
    weight = model.transformer.h[1].attn.c_attn.weight.data
    good = weight.clone()
    weight[16:32] *= 1e6
    with pytest.raises(NumericalError, match=r"keys of layer 1 reach .*65504.*kv_cache_dtype=\"float32\""):
        model.generate([1, 2, 3], max_new_tokens=3)
    weight.copy_(good)
    assert model.generate([1, 2, 3], max_new_tokens=3).tolist() == [tiny_oracle().greedy([1, 2, 3], 3)]


# --- callables ----------------------------------------------------------------------------------------------


def test_callables_of_the_caller():
    model = tiny_model()
    ids = random_ids(model, 1, 4)
    seen = []

    def forbid_even(input_ids, scores):
        seen.append(input_ids.shape)
        return np.where(np.arange(97) % 2 == 0, -np.inf, scores).astype(np.float32)

    output = model.generate(
        ids,
        max_new_tokens=10,
        logits_processor=forbid_even,
        stopping_criteria=lambda input_ids, _: input_ids.shape[1] == 9,
        return_dict_in_generate=True,
    )
    assert seen == [(1, length) for length in range(4, 9)]
    assert output.finish_reasons == ["stop"]
    assert (output.sequences[0, 4:] % 2 == 1).all()


def test_a_callable_that_raises_leaves_the_model_usable():
    model = tiny_model().train()
    ids = random_ids(model, 1, 4)

    def fail(input_ids, scores):
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        model.generate(ids, max_new_tokens=3, logits_processor=fail)
    assert model.training
    assert model.generate(ids, max_new_tokens=3).tolist() == [tiny_oracle().greedy(ids[0].tolist(), 3)]


# --- what is left behind ------------------------------------------------------------------------------------


def test_the_cache_is_empty_afterwards_and_its_memory_is_kept():
    model = tiny_model()
    ids = random_ids(model, 1, 4)
    model.generate(ids, max_new_tokens=3)
    held = model.memory_usage()
    assert held["kv_cache"] > 0
    assert held["causal_masks"] == 0
    assert model.kv_cache.lengths == []
    model.generate(ids, max_new_tokens=30)
    assert model.memory_usage() == held
    model.free_kv_cache()
    assert model.memory_usage()["kv_cache"] == 0


def test_without_cache_no_memory_is_held():
    model = tiny_model(use_kv_cache=False)
    model.generate(random_ids(model, 1, 4), max_new_tokens=3)
    assert model.memory_usage()["kv_cache"] == 0


def test_training_mode_and_gradients_are_as_before():
    model = tiny_model(dropout=0.5).train()
    ids = random_ids(model, 1, 4)
    assert torch.equal(model.generate(ids, max_new_tokens=9), model.generate(ids, max_new_tokens=9))
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


# --- options ------------------------------------------------------------------------------------------------


def test_generation_configs():
    model = tiny_model()
    ids = random_ids(model, 1, 4)
    model.generation_config = GenerationConfig(max_new_tokens=7)
    assert model.generate(ids).shape == (1, 11)
    assert model.generate(ids, generation_config=GenerationConfig(max_new_tokens=6)).shape == (1, 10)
    assert model.generate(
        ids, generation_config=GenerationConfig(max_new_tokens=6), max_new_tokens=5
    ).shape == (1, 9)


@pytest.mark.parametrize(
    ("ids", "options", "message"),
    [
        ([[]], {}, "empty"),
        ([], {}, "empty"),
        (torch.zeros(1, 1, 3, dtype=torch.long), {}, "prompt 0 is a ndarray"),
        (None, {}, "no input_ids"),
        ({"attention_mask": [1]}, {}, "no input_ids"),
        ("a text", {}, "tokenizer"),
        (torch.zeros(1, 3), {}, "integers"),
        ([[1, 97]], {}, "97"),
        ([[1, -1]], {}, "-1"),
        ([[1] * 64], {"overflow": "error"}, '64 tokens; .*"slide"'),
        ([[1]], {"overflow": "crop"}, "overflow is 'crop'"),
        ([[1]], {"keep_tokens": 63}, "keep_tokens is 63; with 64 positions it must be at most 62"),
        ([[1], [2]], {}, r"2 prompts, but max_batch_size is 1.*max_batch_size=2"),
        ([[1]], {"attn_mask": torch.ones(2, 2)}, "attn_mask has shape"),
        ([[1, 2]], {"attention_mask": torch.ones(1, 3)}, "attention_mask has shape"),
        ([[1, 2]], {"attention_mask": torch.zeros(1, 2, dtype=torch.long)}, "no token of row 0"),
        ([[1], [2, 3]], {"attention_mask": torch.ones(2, 2)}, "unequal length"),
        ([[1], [2, 3]], {"attention_mask": [[1], [1, 0]]}, "unequal length"),
        ([[1]], {"temperatur": 1.0}, "did you mean temperature"),
        ([[1]], {"max_new_tokens": 64, "overflow": "error"}, "65 positions, but .* 64"),
        ([[1]], {"eos_token_id": 97}, "eos_token_id holds 97, but the vocabulary has ids 0 to 96"),
    ],
)
def test_bad_input(ids, options, message):
    model = tiny_model()
    with pytest.raises(InvalidInputError, match=message):
        model.generate(ids, **options)
    assert model.memory_usage()["kv_cache"] == 0


def test_use_cache_of_a_model_without():
    with pytest.raises(InvalidInputError, match="use_kv_cache is False"):
        tiny_model(use_kv_cache=False).generate([[1]], use_cache=True)


def test_nan_weights_are_told_and_do_not_stay_in_the_cache():
    model = tiny_model(max_batch_size=2)
    good = model.transformer.h[0].ln_1.weight.detach().clone()
    model.transformer.h[0].ln_1.weight.data[3] = float("nan")
    with pytest.raises(NumericalError, match="row 0"):
        model.generate([[1, 2, 3], [4]], max_new_tokens=3)
    model.transformer.h[0].ln_1.weight.data.copy_(good)
    assert model.generate([[1, 2, 3], [4]], max_new_tokens=3)[1, :4].tolist() == tiny_oracle().greedy([4], 3)
