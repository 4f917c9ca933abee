"""Checkpoints in and out: every layout, every trap, every kind of damage."""

from __future__ import annotations

import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sabiyarn_edge.errors import CheckpointError, InvalidInputError
from sabiyarn_edge.modeling import GPTJXForCausalLM
from sabiyarn_edge.options.generation_config import GenerationConfig
from tests.data.make_tiny_checkpoint import LAYOUTS, TRAPS, make_tiny_checkpoint, random_tensors
from tests.modeling.tiny import FLOAT32_BOUND, SHAPES, logits_of, random_ids, tiny_oracle

WTE = "transformer.wte.weight"
FILES = ["config.json", "generation_config.json", "model.safetensors"]


def assert_equals_oracle(model, bound=FLOAT32_BOUND, **shape):
    ids = random_ids(model, 1, 20)
    np.testing.assert_allclose(
        logits_of(model, ids)[0], tiny_oracle(**shape).logits(ids[0]), atol=bound, rtol=0
    )


def edit(folder, change):
    """Apply change(tensors) to model.safetensors."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def edit_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def load_error(folder) -> str:
    with pytest.raises(CheckpointError) as caught:
        GPTJXForCausalLM.from_pretrained(folder)
    assert str(folder) in str(caught.value)
    return str(caught.value)


# --- what is read -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_layouts(tmp_path, layout, shape):
    model = GPTJXForCausalLM.from_pretrained(make_tiny_checkpoint(tmp_path, layout=layout, **shape))
    assert not model.training
    assert_equals_oracle(model, **shape)


@pytest.mark.parametrize("layout", ["safetensors", "sharded-bin"])
@pytest.mark.parametrize("trap", TRAPS)
@pytest.mark.parametrize("bias", [False, True], ids=["no-bias", "bias"])
def test_traps(tmp_path, layout, trap, bias):
    folder = make_tiny_checkpoint(tmp_path, layout=layout, traps=[trap], bias=bias)
    model = GPTJXForCausalLM.from_pretrained(folder)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model.lm_head.weight is model.transformer.wte.weight
    bound = {"half": 0.05, "bfloat16": 0.5}.get(trap, FLOAT32_BOUND)  # rounded weights, logits near 2.5
    assert_equals_oracle(model, bound=bound, bias=bias)


def test_all_naming_traps_at_once(tmp_path):
    traps = ["mask-buffers", "compiled-prefix", "no-transformer-prefix", "no-lm-head"]
    assert_equals_oracle(GPTJXForCausalLM.from_pretrained(make_tiny_checkpoint(tmp_path, traps=traps)))


def test_j_bias_is_loaded_when_the_file_has_it(tmp_path):
    with_bias = GPTJXForCausalLM.from_pretrained(make_tiny_checkpoint(tmp_path / "with"))
    without = GPTJXForCausalLM.from_pretrained(make_tiny_checkpoint(tmp_path / "without", j_bias=False))
    expected = random_tensors()["transformer.h.1.j.bias"]
    np.testing.assert_array_equal(with_bias.transformer.h[1].j.bias.detach(), expected)
    assert with_bias.transformer.h[1].ln_1.bias is None
    assert without.transformer.h[1].j.bias is None


BUFFERS = {
    "attn.any_mask": (1, 1, 64, 64),
    "attn.bias": (64, 64),
    "bias": (1, 64, 64),
    "attn.masked_bias": (),
    "attn.cache_k": (3, 2, 64, 8),  # [batch, n_heads, positions, head_dim]
    "attn.cache_v": (1, 2, 10, 8),
}


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.module."])
def test_buffers_are_skipped_because_of_name_and_shape(tmp_path, layout, prefix):
    folder = make_tiny_checkpoint(tmp_path, layout=layout)
    path = folder / ("model.safetensors" if layout == "safetensors" else "pytorch_model.bin")
    tensors = load_file(path) if layout == "safetensors" else torch.load(path, weights_only=True)
    for layer in range(2):
        tensors |= {
            f"transformer.h.{layer}.{name}": torch.full(shape, float("nan"))
            for name, shape in BUFFERS.items()
        }
    tensors = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    save_file(tensors, path) if layout == "safetensors" else torch.save(tensors, path)
    model = GPTJXForCausalLM.from_pretrained(folder)
    assert_equals_oracle(model)
    assert list(model.buffers()) == []


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("attn.cache_k", (1, 3, 64, 8)),  # of another number of heads
        ("attn.cache_v", (2, 64, 8)),
        ("attn.masked_bias", (2,)),
        ("attn.bias", (48,)),
        ("attn.scale", (2, 8)),
        ("attn.q_norm.weight", (8, 8)),  # square, but a parameter by its name
        ("extra.mask.weight", (1, 1, 64, 64)),
    ],
)
def test_what_is_like_a_buffer_in_name_or_shape_only_is_refused(tmp_path, name, shape):
    folder = make_tiny_checkpoint(tmp_path)
    edit(folder, lambda tensors: tensors.update({f"transformer.h.0.{name}": torch.zeros(shape)}))
    assert f"Unexpected:\n  transformer.h.0.{name} {list(shape)}" in load_error(folder)


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.model.", "model.model."],
)
@pytest.mark.parametrize("short", [False, True], ids=["transformer", "bare"])
def test_prefixes_of_training(tmp_path, prefix, short):
    folder = make_tiny_checkpoint(tmp_path, traps=["no-transformer-prefix"] if short else [])

    def rename(tensors):
        renamed = {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
        tensors.clear()
        tensors.update(renamed)

    edit(folder, rename)
    assert_equals_oracle(GPTJXForCausalLM.from_pretrained(folder))


def test_blocks_that_were_compiled_one_by_one(tmp_path):
    folder = make_tiny_checkpoint(tmp_path)

    def rename(tensors):
        for name in [name for name in tensors if ".h.1." in name]:
            tensors[name.replace(".h.1.", ".h.1._orig_mod.")] = tensors.pop(name)

    edit(folder, rename)
    assert_equals_oracle(GPTJXForCausalLM.from_pretrained(folder))


def test_files_are_preferred_in_a_fixed_order(tmp_path):
    make_tiny_checkpoint(tmp_path, layout="bin", seed=5)
    make_tiny_checkpoint(tmp_path, layout="sharded", seed=6)
    make_tiny_checkpoint(tmp_path, layout="safetensors", seed=7)
    assert_equals_oracle(GPTJXForCausalLM.from_pretrained(tmp_path), seed=7)
    (tmp_path / "model.safetensors").unlink()
    assert_equals_oracle(GPTJXForCausalLM.from_pretrained(tmp_path), seed=6)
    (tmp_path / "model.safetensors.index.json").unlink()
    assert_equals_oracle(GPTJXForCausalLM.from_pretrained(tmp_path), seed=5)


def test_bin_files_of_old_torch(tmp_path):
    folder = make_tiny_checkpoint(tmp_path, layout="bin")
    path = folder / "pytorch_model.bin"
    torch.save(torch.load(path, weights_only=True), path, _use_new_zipfile_serialization=False)
    assert_equals_oracle(GPTJXForCausalLM.from_pretrained(folder))


@pytest.mark.parametrize("halved", [WTE, "lm_head.weight"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tied_weights_in_two_types(tmp_path, halved, dtype):
    folder = make_tiny_checkpoint(tmp_path)

    def half(tensors):
        tensors[halved] = tensors[halved].to(dtype)

    edit(folder, half)
    assert_equals_oracle(GPTJXForCausalLM.from_pretrained(folder))  # of the finer one

    def change(tensors):
        tensors[halved][3, 4] += 1

    edit(folder, change)
    assert "lm_head.weight differs from transformer.wte.weight" in load_error(folder)


def test_nan_weights_are_loaded(tmp_path):
    folder = make_tiny_checkpoint(tmp_path)

    def spoil(tensors):
        tensors[WTE][3, 4] = float("nan")
        tensors["lm_head.weight"][3, 4] = float("nan")

    edit(folder, spoil)
    assert GPTJXForCausalLM.from_pretrained(folder).transformer.wte.weight[3, 4].isnan()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_loaded_models_can_be_trained_and_the_files_stay_as_they_are(tmp_path, layout):
    folder = make_tiny_checkpoint(tmp_path, layout=layout)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    model = GPTJXForCausalLM.from_pretrained(folder).train()
    weight = model.transformer.wte.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(random_ids(model, 1, 8), targets=random_ids(model, 1, 8)).loss.backward()
    optimizer.step()
    assert not torch.equal(model.transformer.wte.weight, weight)
    assert model.lm_head.weight is model.transformer.wte.weight
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_settings(tmp_path):
    folder = make_tiny_checkpoint(tmp_path)
    model = GPTJXForCausalLM.from_pretrained(folder, kv_cache_dtype="float16", max_batch_size=4, dropout=0.1)
    assert (model.config.kv_cache_dtype, model.config.max_batch_size, model.config.dropout) == (
        "float16",
        4,
        0.1,
    )
    with pytest.raises(InvalidInputError, match=r"n_layer cannot be set.*These can: use_kv_cache"):
        GPTJXForCausalLM.from_pretrained(folder, n_layer=3)
    with pytest.raises(InvalidInputError, match="kv_cache_dtype is 'int8'"):
        GPTJXForCausalLM.from_pretrained(folder, kv_cache_dtype="int8")


def test_null_in_the_config_is_the_default(tmp_path):
    folder = make_tiny_checkpoint(tmp_path)
    edit_config(folder, bias=None, dropout=None, kv_cache_dtype=None, use_kv_cache=None, max_batch_size=None)
    model = GPTJXForCausalLM.from_pretrained(folder)
    assert_equals_oracle(model)
    config = model.config
    assert (config.bias, config.dropout, config.kv_cache_dtype, config.max_batch_size) == (
        False,
        0.0,
        "float32",
        1,
    )
    edit_config(folder, block_size=None)
    assert "block_size is None" in load_error(folder)


def test_json_files_with_a_byte_order_mark(tmp_path):
    folder = make_tiny_checkpoint(tmp_path, layout="sharded")
    (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    for path in folder.glob("*.json"):
        path.write_text(path.read_text(), encoding="utf-8-sig")
    model = GPTJXForCausalLM.from_pretrained(folder)
    assert_equals_oracle(model)
    assert model.generation_config.eos_token_id == 2


HARMLESS = {
    "architectures": ["GPTJXForCausalLM"],
    "transformers_version": "4.57.0",
    "_name_or_path": "x",
    "learning_rate": 3e-4,
    "max_steps": 1000,
    "adam_epsilon": 1e-8,
    "activation_checkpointing": True,
    "tensor_parallel_size": 2,
    "initializer_range": 0.02,
    "num_experts": 4,
    "moe_dim": 3072,
    "expert_per_layer": {"0": 2},
    "use_moe": False,
    # other architectures' keys that say what GPTJX does anyway
    "use_rope": False,
    "rope_scaling": None,
    "sliding_window": None,
    "n_kv_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "activation_function": "gelu",
    "hidden_act": "gelu",
    "layer_norm_epsilon": 1e-5,
    "intermediate_size": 64,
    "position_embedding_type": "absolute",
    "pruned_heads": {},
}


def test_keys_that_change_nothing_are_ignored(tmp_path):
    folder = make_tiny_checkpoint(tmp_path)
    edit_config(folder, **HARMLESS)
    assert_equals_oracle(GPTJXForCausalLM.from_pretrained(folder))


FOREIGN = {
    "rope": True,
    "use_rotary": True,
    "rope_theta": 10000.0,
    "n_kv_heads": 1,
    "num_key_value_heads": 1,
    "kv_lora_rank": 16,
    "use_mla": True,
    "latent_attention": True,
    "differential_attention": True,
    "diff_attn": True,
    "layer_sharing": True,
    "share_layers": 2,
    "sliding_window": 32,
    "attention_window": 32,
    "activation_function": "gelu_new",
    "hidden_act": "silu",
    "rms_norm_eps": 1e-6,
    "layer_norm_epsilon": 1e-6,
    "norm_type": "rmsnorm",
    "use_rmsnorm": True,
    "qk_norm": True,
    "use_swiglu": True,
    "num_local_experts": 4,
    "parallel_residual": True,
    "attn_logit_softcapping": 50.0,
    "position_embedding_type": "alibi",
    "n_inner": 32,
}


@pytest.mark.parametrize(("name", "value"), FOREIGN.items(), ids=FOREIGN)
def test_keys_of_another_architecture_are_refused_by_name(tmp_path, name, value):
    folder = make_tiny_checkpoint(tmp_path)
    edit_config(folder, **{name: value})
    assert f"another architecture than GPTJX: {name} ({value!r}). " in load_error(folder)


def test_all_foreign_keys_are_named_at_once(tmp_path):
    folder = make_tiny_checkpoint(tmp_path)
    edit_config(folder, rope=True, n_kv_heads=1)
    assert "rope (True), n_kv_heads (1)" in load_error(folder)


# --- what is written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_round_trip(tmp_path, shape):
    model = GPTJXForCausalLM.from_pretrained(make_tiny_checkpoint(tmp_path / "in", **shape))
    model.save_pretrained(tmp_path / "made" / "out")
    again = GPTJXForCausalLM.from_pretrained(tmp_path / "made" / "out")
    assert again.config == model.config
    ids = random_ids(model, 2, 9)
    np.testing.assert_array_equal(logits_of(again, ids), logits_of(model, ids))


def test_saved_files(tmp_path):
    GPTJXForCausalLM.from_pretrained(make_tiny_checkpoint(tmp_path / "in")).save_pretrained(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == FILES
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["model_type"] == "gptjx"
    assert config["architectures"] == ["GPTJXForCausalLM"]
    assert config["n_heads"] == 2
    modes = {path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert len(modes) == 1  # the umask's, for all
    saved = load_file(tmp_path / "out" / "model.safetensors")
    assert saved.keys() == random_tensors().keys()  # wte once, j.bias kept
    for name, array in random_tensors().items():
        np.testing.assert_array_equal(saved[name], array)


def test_generation_config_comes_and_goes_with_the_checkpoint(tmp_path):
    folder = make_tiny_checkpoint(tmp_path / "in")
    assert GPTJXForCausalLM.from_pretrained(folder).generation_config == GenerationConfig()
    (folder / "generation_config.json").write_text('{"eos_token_id": 2, "transformers_version": "4.57.0"}')
    model = GPTJXForCausalLM.from_pretrained(folder)
    assert model.generation_config.eos_token_id == 2
    model.save_pretrained(tmp_path / "out")
    again = GPTJXForCausalLM.from_pretrained(tmp_path / "out")
    assert again.generation_config == model.generation_config
    (folder / "generation_config.json").write_text('{"do_sample": true, "top_p": 7}')
    assert "top_p is 7" in load_error(folder)


def test_special_tokens_that_only_config_json_has(tmp_path):
    folder = make_tiny_checkpoint(tmp_path)
    edit_config(folder, eos_token_id=[2, 3], pad_token_id=0, bos_token_id=None)
    config = GPTJXForCausalLM.from_pretrained(folder).generation_config
    assert (config.eos_token_ids, config.pad_token_id, config.bos_token_id) == ((2, 3), 0, None)
    (folder / "generation_config.json").write_text('{"eos_token_id": 5}')
    config = GPTJXForCausalLM.from_pretrained(folder).generation_config
    assert (config.eos_token_ids, config.pad_token_id) == ((5,), 0)


def test_the_end_token_of_config_json_ends_a_row(tmp_path):
    folder = make_tiny_checkpoint(tmp_path)
    free = tiny_oracle().greedy([1, 2, 3], 12)
    edit_config(folder, eos_token_id=free[6])
    found = GPTJXForCausalLM.from_pretrained(folder).generate([1, 2, 3], max_new_tokens=12)
    assert found.tolist() == [free[: free.index(free[6], 3) + 1]]


@pytest.mark.parametrize("wrong", [-1, 97, 50256, [2, 97], [], "2", True, 2.0], ids=repr)
def test_ids_in_config_json_that_are_no_tokens_are_left_out(tmp_path, wrong):
    folder = make_tiny_checkpoint(tmp_path)
    edit_config(folder, eos_token_id=wrong, pad_token_id=-1)
    model = GPTJXForCausalLM.from_pretrained(folder)
    assert model.generation_config == GenerationConfig()
    assert model.generate([1, 2, 3], max_new_tokens=2).tolist() == [tiny_oracle().greedy([1, 2, 3], 2)]


def test_saving_over_the_folder_it_was_loaded_from(tmp_path):
    folder = make_tiny_checkpoint(tmp_path)
    GPTJXForCausalLM.from_pretrained(folder).save_pretrained(folder)
    assert_equals_oracle(GPTJXForCausalLM.from_pretrained(folder))


@pytest.mark.parametrize("failing", ["save_file", "replace"])
def test_a_failed_save_leaves_the_old_files(tmp_path, monkeypatch, failing):
    folder = make_tiny_checkpoint(tmp_path, seed=3)
    model = GPTJXForCausalLM.from_pretrained(folder)
    model.transformer.wte.weight.data.zero_()

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    if failing == "save_file":
        monkeypatch.setattr("safetensors.torch.save_file", full)
    else:
        monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(CheckpointError, match="No space left"):
        model.save_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert_equals_oracle(GPTJXForCausalLM.from_pretrained(folder), seed=3)


def test_saving_where_a_file_is(tmp_path):
    model = GPTJXForCausalLM.from_pretrained(make_tiny_checkpoint(tmp_path / "in"))
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot write"):
        model.save_pretrained(tmp_path / "file")


# --- what does not fit --------------------------------------------------------------------------------------


def test_one_error_lists_all_tensors_that_do_not_fit(tmp_path):
    folder = make_tiny_checkpoint(tmp_path)

    def break_it(tensors):
        del tensors["transformer.ln_f.weight"], tensors["transformer.h.0.j.bias"]
        tensors["transformer.h.0.attn.c_attn.bias"] = torch.zeros(48)
        tensors["extra"] = torch.zeros(3, 4)
        tensors["transformer.h.1.ln_2.weight"] = torch.zeros(15)
        tensors["transformer.h.1.mlp.c_fc.weight"] = torch.zeros(64, 16, dtype=torch.int8)

    edit(folder, break_it)
    message = load_error(folder)
    missing, rest = message.split("Unexpected:")
    unexpected, wrong = rest.split("Of wrong shape or type:")
    assert "transformer.ln_f.weight" in missing
    assert "transformer.h.0.j.bias" in missing
    assert "transformer.h.0.attn.c_attn.bias [48]" in unexpected
    assert "extra [3, 4]" in unexpected
    assert "transformer.h.1.ln_2.weight is [15], must be [16]" in wrong
    assert "transformer.h.1.mlp.c_fc.weight is int8" in wrong


def test_a_long_list_of_tensors_names_ten_and_counts_the_rest(tmp_path):
    folder = make_tiny_checkpoint(tmp_path)
    edit(folder, lambda tensors: tensors.update({f"extra.{n:02}": torch.zeros(1) for n in range(25)}))
    edit_config(folder, n_layer=1)
    message = load_error(folder)
    listed = message.split("Unexpected:\n")[1].splitlines()
    assert len([line for line in listed if line.startswith("  extra.")]) == 10
    assert listed[10] == f"  and {25 - 10 + 8} more"  # and the 8 tensors of layer 1


def test_wpe_and_block_size(tmp_path):
    folder = make_tiny_checkpoint(tmp_path)
    edit_config(folder, block_size=128)
    assert (
        "wpe.weight is [64, 16], must be [128, 16]: it has 64 positions, but block_size is 128"
        in load_error(folder)
    )


def test_a_head_that_differs_from_wte(tmp_path):
    folder = make_tiny_checkpoint(tmp_path)
    edit(folder, lambda tensors: tensors["lm_head.weight"].add_(1e-3))
    assert "lm_head.weight differs from transformer.wte.weight" in load_error(folder)


def test_a_tensor_under_two_names(tmp_path):
    folder = make_tiny_checkpoint(tmp_path)
    edit(folder, lambda tensors: tensors.update({"ln_f.weight": torch.ones(16)}))
    assert "holds transformer.ln_f.weight twice" in load_error(folder)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "change",
    [
        torch.Tensor.to_sparse,
        lambda tensor: tensor.to("meta"),
        lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8),
    ],
    ids=["sparse", "meta", "quantized"],
)
def test_a_tensor_that_is_not_dense_is_named(tmp_path, change):
    folder = make_tiny_checkpoint(tmp_path, layout="bin")
    tensors = torch.load(folder / "pytorch_model.bin")
    name = next(name for name in tensors if name.endswith("wte.weight"))
    tensors[name] = change(tensors[name])
    torch.save(tensors, folder / "pytorch_model.bin")
    assert re.search(rf"{name} is a tensor of .*, but must be a dense one", load_error(folder))


# --- damage -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("safetensors", "model.safetensors"),
        ("bin", "pytorch_model.bin"),
        ("sharded", "model-00002-of-00003.safetensors"),
    ],
)
@pytest.mark.parametrize("keep", [0, 5, 1000, -100], ids=["empty", "5-bytes", "1000-bytes", "all-but-100"])
def test_truncated_files(tmp_path, layout, name, keep):
    path = make_tiny_checkpoint(tmp_path, layout=layout) / name
    path.write_bytes(path.read_bytes()[:keep])
    message = load_error(path.parent)
    assert f"{path} (" in message or "damaged" in message


@pytest.mark.parametrize(
    ("layout", "name"), [("safetensors", "model.safetensors"), ("bin", "pytorch_model.bin")]
)
def test_files_of_noise(tmp_path, layout, name):
    path = make_tiny_checkpoint(tmp_path, layout=layout) / name
    path.write_bytes(np.random.default_rng(0).bytes(5000))
    load_error(path.parent)


def test_a_pickle_that_would_run_code_is_not_opened(tmp_path):
    folder = make_tiny_checkpoint(tmp_path, layout="bin")

    class Hostile:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "it-ran",))

    torch.save({WTE: Hostile()}, folder / "pytorch_model.bin")
    assert "could run code" in load_error(folder)
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Hostile(), protocol=2))
    load_error(folder)
    assert not (tmp_path / "it-ran").exists()


def test_a_bin_file_of_something_else(tmp_path):
    folder = make_tiny_checkpoint(tmp_path, layout="bin")
    torch.save([torch.ones(2)], folder / "pytorch_model.bin")
    assert "no plain dict of tensors" in load_error(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        ('{"block_size": 64', "not valid JSON"),
        ("[]", "holds a list"),
        ("{}", "not the config of a GPTJX model"),
        ('{"block_size": 64, "vocab_size": 97, "n_layer": 2, "n_embd": 16}', "it lacks n_heads"),
        (
            '{"block_size": 64, "vocab_size": 97, "n_layer": 2, "n_embd": 16, "n_heads": 3}',
            "n_heads must divide",
        ),
        (
            '{"block_size": "64", "vocab_size": 97, "n_layer": 2, "n_embd": 16, "n_heads": 2}',
            "block_size is '64'",
        ),
    ],
)
def test_bad_config(tmp_path, text, message):
    path = make_tiny_checkpoint(tmp_path) / "config.json"
    path.write_text(text)
    assert message in load_error(path.parent)


def test_missing_files(tmp_path):
    folder = make_tiny_checkpoint(tmp_path / "a")
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    message = load_error(folder)
    assert "none of model.safetensors, model.safetensors.index.json" in message
    assert "config.json, weights.safetensors" in message
    (folder / "config.json").unlink()
    assert "holds no config.json" in load_error(folder)


def test_bad_indexes(tmp_path):
    folder = make_tiny_checkpoint(tmp_path / "checkpoint", layout="sharded")
    index = folder / "model.safetensors.index.json"
    shard = folder / "model-00001-of-00003.safetensors"
    shutil.copy(shard, tmp_path / "outside.safetensors")
    shutil.copy(shard, folder / "copy.safetensors")

    good = json.loads(index.read_text())["weight_map"]
    for weight_map, message in [
        ({**good, WTE: "../outside.safetensors"}, "outside its folder: ../outside.safetensors"),
        ({**good, WTE: "absent.safetensors"}, "lacks shards that model.safetensors.index.json names: absent"),
        ({**good, WTE: "copy.safetensors"}, "repeats tensors of another shard"),
        ({}, 'no "weight_map"'),
        ([], 'no "weight_map"'),
    ]:
        index.write_text(json.dumps({"weight_map": weight_map}))
        assert message in load_error(folder)
    index.write_text("{")
    assert "not valid JSON" in load_error(folder)


@pytest.mark.parametrize("wrong", [None, 3, b"folder", ""])
def test_what_is_no_path_is_refused(tmp_path: Path, wrong: Any) -> None:
    model = GPTJXForCausalLM.from_pretrained(make_tiny_checkpoint(tmp_path))
    with pytest.raises(InvalidInputError, match=r"source is .*, but must be a path"):
        GPTJXForCausalLM.from_pretrained(wrong)
    with pytest.raises(InvalidInputError, match=r"folder is .*, but must be a path"):
        model.save_pretrained(wrong)
