"""Checkpoints of mixtures of experts: names, axes and counts, and messages that say which is wrong."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from sabiyarn_edge.modeling import GPTJXForCausalLM
from tests.data.make_tiny_checkpoint import LAYOUTS, TRAPS, make_tiny_checkpoint, random_tensors
from tests.modeling.test_checkpoint import assert_equals_oracle, edit, edit_config, load_error

SHAPE = {"use_moe": True, "num_experts": 4, "moe_dim": 24, "expert_per_layer": {"0": 3}}
MLP = "transformer.h.1.mlp."


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("trap", [None, *TRAPS])
def test_layouts_and_traps(tmp_path, layout, trap):
    folder = make_tiny_checkpoint(tmp_path, layout=layout, traps=[trap] if trap else [], **SHAPE)
    model = GPTJXForCausalLM.from_pretrained(folder)
    assert model.config.use_moe
    assert [model.config.experts_of(layer) for layer in range(2)] == [3, 4]
    if trap not in ("half", "bfloat16"):  # with rounded weights some token may go to another expert
        assert_equals_oracle(model, **SHAPE)


def test_prefixes_of_trainers(tmp_path):
    folder = make_tiny_checkpoint(tmp_path, **SHAPE)

    def add_prefix(tensors):
        for name in list(tensors):
            tensors[f"module.{name}"] = tensors.pop(name)

    edit(folder, add_prefix)
    assert_equals_oracle(GPTJXForCausalLM.from_pretrained(folder), **SHAPE)


@pytest.mark.parametrize("trap", ["bfloat16", "half"])
def test_16_bits_are_kept(tmp_path, trap):
    folder = make_tiny_checkpoint(tmp_path / "in", traps=[trap], **SHAPE)
    model = GPTJXForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "out")
    before, after = (load_file(path / "model.safetensors") for path in (folder, tmp_path / "out"))
    for name, tensor in after.items():
        assert tensor.dtype == before[name].dtype
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["torch_dtype"] == {"bfloat16": "bfloat16", "half": "float16"}[trap]
    with torch.no_grad():
        model.transformer.ln_f.weight[0] += 1e-6  # what 16 bits cannot hold
    model.save_pretrained(tmp_path / "out")
    assert {tensor.dtype for tensor in load_file(tmp_path / "out" / "model.safetensors").values()} == {
        torch.float32
    }


def test_saved_files(tmp_path):
    folder = make_tiny_checkpoint(tmp_path / "in", **SHAPE)
    GPTJXForCausalLM.from_pretrained(folder).save_pretrained(tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert (config["architectures"], config["model_type"]) == (["GPTJXMoEForCausalLM"], "sabiyarn")
    assert config["use_moe"] is True
    assert {key: config[key] for key in SHAPE} == SHAPE
    saved, made = load_file(tmp_path / "out" / "model.safetensors"), random_tensors(**SHAPE)
    assert saved.keys() == made.keys()
    for name, array in made.items():
        np.testing.assert_array_equal(saved[name], array)


def test_a_dense_checkpoint_of_the_same_class(tmp_path):
    folder = make_tiny_checkpoint(tmp_path)
    edit_config(
        folder, architectures=["GPTJXMoEForCausalLM"], model_type="sabiyarn", **{**SHAPE, "use_moe": False}
    )
    model = GPTJXForCausalLM.from_pretrained(folder)
    assert_equals_oracle(model)
    assert "num_experts" not in model.config.to_dict()


@pytest.mark.parametrize(
    "values",
    [
        {"num_experts": 4},
        {"num_experts_per_tok": 2},
        {"moe_dim": 24},
        {"expert_per_layer": {"0": 3}},
        {"use_moe": None, "num_experts": 4, "num_experts_per_tok": 2, "moe_dim": 24},
    ],
)
def test_sizes_of_experts_mean_nothing_without_use_moe(tmp_path, values):
    folder = make_tiny_checkpoint(tmp_path)
    edit_config(folder, **values)
    assert_equals_oracle(GPTJXForCausalLM.from_pretrained(folder))


def test_a_mixture_without_use_moe_is_never_read_as_dense(tmp_path):
    """Its tensors show what it is, so that the message names the key that is missing."""
    folder = make_tiny_checkpoint(tmp_path, **SHAPE)
    config = json.loads((folder / "config.json").read_text())
    del config["use_moe"]
    (folder / "config.json").write_text(json.dumps(config))
    assert f"{EXPERTS_FOUND} but use_moe is false or absent in config.json: set it to true." in load_error(
        folder
    )


def swap(name, *axes):
    return lambda tensors: tensors.update({name: tensors[name].permute(*axes).contiguous()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            swap(MLP + "fc_bank", 0, 2, 1),
            "h.1.mlp.fc_bank is [4, 24, 16], must be [4, 16, 24] (experts, n_embd, moe_dim). Its axes are in another",
        ),
        (
            swap(MLP + "proj_bank", 2, 1, 0),
            "proj_bank is [16, 24, 4], must be [4, 24, 16] (experts, moe_dim, n_embd). Its axes are in another order",
        ),
        (
            lambda tensors: tensors.update({MLP + "fc_bank": torch.zeros(4, 16, 25)}),
            "h.1.mlp.fc_bank is [4, 16, 25], must be [4, 16, 24] (experts, n_embd, moe_dim).",
        ),
        (
            lambda tensors: tensors.update({MLP + "gate.weight": torch.zeros(3, 16)}),
            "h.1.mlp.gate.weight is [3, 16], must be [4, 16] (experts, n_embd).",
        ),
        (
            lambda tensors: tensors.update({MLP + "proj_bank": torch.zeros(4, 24 * 16)}),
            "proj_bank is [4, 384], must be [4, 24, 16]",
        ),
        (
            lambda tensors: tensors.update({MLP + "c_fc.weight": torch.zeros(64, 16)}),
            "layer 1 has a dense MLP (transformer.h.1.mlp.c_fc.weight), but use_moe is true in config.json.",
        ),
        (lambda tensors: tensors.pop(MLP + "gate.weight"), "Missing:\n  transformer.h.1.mlp.gate.weight"),
        (
            lambda tensors: tensors[MLP + "gate.weight"].view(-1)[5].fill_(float("nan")),
            "transformer.h.1.mlp.gate.weight holds NaN or infinite numbers",
        ),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, change, message):
    folder = make_tiny_checkpoint(tmp_path, **SHAPE)
    edit(folder, change)
    assert message in load_error(folder)


EXPERTS_FOUND = "layer 0 has experts (transformer.h.0.mlp.gate.weight),"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"expert_per_layer": {"0": 2}},
            "layer 0 has 2 experts by expert_per_layer in config.json, but its tensors have 3 ",
        ),
        (
            {"expert_per_layer": None},
            "layer 0 has 4 experts by num_experts in config.json, but its tensors have 3 ",
        ),
        ({"num_experts": 5}, "layer 1 has 5 experts by num_experts in config.json, but its tensors have 4 "),
        (
            {"expert_per_layer": {"0": 3, "2": 4}},
            'names the layer \'2\'; n_layer is 2, so layers are "0" to "1"',
        ),
        ({"expert_per_layer": {"first": 3}}, "names the layer 'first'"),
        (
            {"expert_per_layer": {"0": "3"}},
            "expert_per_layer of layer 0 is '3'; it must be an integer of at least 1",
        ),
        ({"expert_per_layer": [3, 4]}, "expert_per_layer is [3, 4]; it must be an object"),
        ({"num_experts_per_tok": 4}, "num_experts_per_tok is 4, but layer 0 has 3 experts"),
        ({"num_experts_per_tok": 0}, "num_experts_per_tok is 0; it must be an integer of at least 1"),
        ({"moe_dim": 0}, "moe_dim is 0; it must be an integer of at least 1"),
        ({"moe_dim": 32}, "fc_bank is [3, 16, 24], must be [3, 16, 32] (experts, n_embd, moe_dim)"),
        (
            {"use_moe": False},
            f"{EXPERTS_FOUND} but use_moe is false or absent in config.json: set it to true.",
        ),
        (
            {"use_moe": None},
            f"{EXPERTS_FOUND} but use_moe is false or absent in config.json: set it to true.",
        ),
        ({"use_moe": 1}, "use_moe is 1; it must be true or false"),
        (
            {"n_shared_experts": 1},
            "another architecture than GPTJX: n_shared_experts (1). Supported are learned",
        ),
        ({"moe_router_type": "hash"}, "another architecture than GPTJX: moe_router_type ('hash')"),
    ],
)
def test_configs_that_do_not_fit(tmp_path, values, message):
    folder = make_tiny_checkpoint(tmp_path, **SHAPE)
    edit_config(folder, **values)
    assert message in load_error(folder)


def test_use_moe_beside_dense_weights(tmp_path):
    folder = make_tiny_checkpoint(tmp_path)
    edit_config(folder, use_moe=True)
    message = load_error(folder)
    assert "layer 0 has a dense MLP (transformer.h.0.mlp.c_fc.weight), but use_moe is true" in message
    assert len(message.splitlines()) < 10
