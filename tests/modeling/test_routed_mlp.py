"""Mixtures of experts in torch: what training adds, which experts are computed, and which stay."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.modeling import GPTJXConfig
from sabiyarn_edge.modeling.experts import read_kept_experts
from tests.modeling.tiny import FLOAT32_BOUND, logits_of, random_ids, tiny_model, tiny_oracle
from tests.reference_gptjx import ReferenceGPTJX

SHAPE = {"use_moe": True, "num_experts": 4, "expert_per_layer": {"0": 3}}
GATE = "transformer.h.1.mlp.gate.weight"


def watched(model):
    """How many tokens each expert of layer 1 is given; filled by forward passes."""
    counts = dict.fromkeys(range(4), 0)

    def watch(product, expert, x):
        if product == "fc_bank":
            counts[expert] += len(x)

    model.transformer.h[1].mlp.watch = watch
    return counts


def test_only_chosen_experts_are_computed():
    model = tiny_model(**SHAPE)
    counts = watched(model)
    logits_of(model, random_ids(model, 2, 15))
    assert sum(counts.values()) == 2 * 30  # two experts for each token
    with torch.no_grad():
        model.transformer.h[1].mlp.gate.weight[:2] = 0
        model.transformer.h[1].mlp.gate.weight[3] = -model.transformer.h[1].mlp.gate.weight[2]
    counts = watched(model)
    logits_of(model, random_ids(model, 1, 1))
    assert sorted(counts.values()) == [0, 0, 1, 1]


def test_equal_scores_go_to_the_lower_index():
    model = tiny_model(**SHAPE)
    with torch.no_grad():
        model.transformer.h[1].mlp.gate.weight[:] = 0
    counts = watched(model)
    logits_of(model, random_ids(model, 1, 9))
    assert counts == {0: 9, 1: 9, 2: 0, 3: 0}


def test_gradients_are_those_of_computing_every_expert():
    """Of the loss, in float64, by another way: all experts, weighted by what is 0 for those not chosen."""
    model = tiny_model(**SHAPE).double()
    ids = random_ids(model, 2, 12)
    model(ids[:, :-1], targets=ids[:, 1:]).loss.backward()
    found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
    model.zero_grad()
    for block in model.transformer.h:
        block.mlp.forward = lambda x, _balance, mlp=block.mlp: every_expert(mlp, x)
    model(ids[:, :-1], targets=ids[:, 1:]).loss.backward()
    for name, parameter in model.named_parameters():
        # The router's softmax is float32: 2^-24, and a few sums.
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-5, atol=1e-7)


def every_expert(mlp, x):
    scores = x @ mlp.gate.weight.T
    least = scores.topk(2).values[..., 1:]
    weights = scores.masked_fill(scores < least, -torch.inf).softmax(dim=-1)
    hidden = torch.nn.functional.gelu(torch.einsum("rtd,edh->rteh", x, mlp.fc_bank))
    return torch.einsum("rteh,ehd,rte->rtd", hidden, mlp.proj_bank, weights)


def test_the_load_balancing_term():
    """E * sum of load times mean probability, mean over the layers: computed here from the oracle's own scores."""
    model = tiny_model(**SHAPE)
    ids = random_ids(model, 1, 20)
    assert model(ids).load_balancing_loss is None  # evaluation
    model.train()
    with torch.no_grad():  # without noise
        found = model(ids).load_balancing_loss

    terms = []

    class Watching(ReferenceGPTJX):
        def _weights_of_experts(self, scores):
            weights = super()._weights_of_experts(scores)
            chances = np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)
            terms.append(scores.shape[1] * ((weights > 0).mean(axis=0) * chances.mean(axis=0)).sum())
            return weights

    oracle = tiny_oracle(**SHAPE)
    Watching(oracle._tensors, n_layer=2, n_heads=2).logits(ids[0])
    np.testing.assert_allclose(found, np.mean(terms), rtol=1e-5)  # float32 sums of 20 tokens


def test_the_load_balancing_term_trains_the_router():
    model = tiny_model(**SHAPE).train()
    model(random_ids(model, 1, 20)).load_balancing_loss.backward()
    assert model.get_parameter(GATE).grad.abs().sum() > 0
    assert model.transformer.h[1].mlp.fc_bank.grad is None  # of the last layer: no expert's output matters


def test_dense_models_have_no_load_balancing_term():
    model = tiny_model().train()
    assert model(random_ids(model, 1, 5)).load_balancing_loss is None


def test_noise_in_training_with_gradients_only():
    model = tiny_model(**SHAPE)
    ids = random_ids(model, 1, 20)
    quiet = logits_of(model, ids)
    assert not torch.equal(model.train()(ids).logits, model(ids).logits)
    np.testing.assert_array_equal(logits_of(model, ids), quiet)  # training mode, no gradients
    np.testing.assert_array_equal(model.eval()(ids).logits.detach(), quiet)


def test_deviation_of_the_noise():
    """The same token 4000 times, two experts whose scores differ by 0.1: noise exchanges them as often as N(0, 0.02)
    passes 0.1."""
    model = tiny_model(use_moe=True, num_experts=2, num_experts_per_tok=1).train()
    mlp, x = model.transformer.h[1].mlp, torch.zeros(1, 4000, 16)
    x[..., 0] = 1
    with torch.no_grad():
        mlp.gate.weight.copy_(torch.tensor([[1.1], [1.0]]) * torch.eye(1, 16))
    counts = dict.fromkeys(range(2), 0)
    mlp.watch = lambda product, expert, rows: counts.update({expert: len(rows)})
    torch.manual_seed(0)
    mlp(x)
    expected = 4000 * 0.23975  # Phi(-0.1 / sqrt(0.02))
    assert abs(counts[1] - expected) < 4 * 27  # four standard deviations of a binomial count


# --- removing experts -----------------------------------------------------------------------------------------


def test_kept_experts_compute_as_if_they_alone_had_been_there():
    kept = {0: [2, 0], 1: [0, 1, 3]}
    model = tiny_model(**SHAPE)
    model.keep_experts(kept)
    assert model.config.expert_per_layer == {"0": 2, "1": 3}
    tensors = dict(tiny_oracle(**SHAPE)._tensors)
    for layer, experts in kept.items():
        for name in ("gate.weight", "fc_bank", "proj_bank"):
            whole = f"transformer.h.{layer}.mlp.{name}"
            tensors[whole] = tensors[whole][experts]
    ids = random_ids(model, 1, 20)
    expected = ReferenceGPTJX(tensors, n_layer=2, n_heads=2).logits(ids[0])
    np.testing.assert_allclose(logits_of(model, ids)[0], expected, atol=FLOAT32_BOUND, rtol=0)


@pytest.mark.parametrize(
    ("kept", "message"),
    [
        (
            {0: [0]},
            "layer 0 is to keep 1 of its 3 experts (0), but each token is routed to num_experts_per_tok = 2",
        ),
        ({0: []}, "layer 0 is to keep 0 of its 3 experts (none)"),
        ({0: [0, 3]}, "layer 0 is to keep the experts 0, 3, but it has 0 to 2 (3 experts)"),
        ({1: [0, 1, 1]}, "layer 1 is to keep the experts 0, 1, 1: one is named twice"),
        ({2: [0, 1]}, "experts of layer 2 are to be removed. n_layer is 2, so layers are 0 to 1"),
    ],
)
def test_experts_that_cannot_be_kept(kept, message):
    model = tiny_model(**SHAPE)
    before = logits_of(model, random_ids(model, 1, 5))
    with pytest.raises(InvalidInputError) as caught:
        model.keep_experts(kept)
    assert message in str(caught.value)
    np.testing.assert_array_equal(logits_of(model, random_ids(model, 1, 5)), before)


def test_a_dense_model_has_no_experts_to_keep():
    with pytest.raises(InvalidInputError, match="this model has none: use_moe is false"):
        tiny_model().keep_experts({0: [0, 1]})


CONFIG = GPTJXConfig(n_layer=3, use_moe=True)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("0:0,1;*:0,1,2", {0: [0, 1], 1: [0, 1, 2], 2: [0, 1, 2]}),
        (" 2 : 3 , 1 ; ", {2: [3, 1]}),
        ("*:1,2", {0: [1, 2], 1: [1, 2], 2: [1, 2]}),
    ],
)
def test_kept_experts_as_text_and_as_a_file(tmp_path, text, kept):
    assert read_kept_experts(text, CONFIG) == kept
    file = tmp_path / "kept.json"
    file.write_text(json.dumps({str(layer): experts for layer, experts in kept.items()}))
    assert read_kept_experts(str(file), CONFIG) == kept


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no layer"),
        ("0", "'0' cannot be read"),
        ("0:a", "'0:a' cannot be read"),
        ("0:", "'0:' cannot be read"),
        ("0:1,2;0:1", "names the layer 0 twice"),
        ("00:0,1;0:1,2", "names the layer 0 twice"),
        ("1:0,1;01:2,3", "names the layer 1 twice"),
        ("1:0,1;*:0,1;*:2,3", "names the layer * twice"),
        ("3:0,1", "names the layer '3'. n_layer is 3, so layers are 0 to 2. Name layers"),
        ("x:0,1", "names the layer 'x'"),
    ],
)
def test_kept_experts_that_cannot_be_read(text, message):
    with pytest.raises(InvalidInputError) as caught:
        read_kept_experts(text, CONFIG)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not valid JSON"),
        ("{}", "names no layer"),
        ('{"0": 1}', "layer 0 has 1"),
        ('{"0": ["1"]}', "layer 0 has"),
        ('{"0": [0, 1], "0": [2, 3]}', "names the layer 0 twice"),
        ('{"0": [0, 1], "00": [2, 3]}', "names the layer 0 twice"),
        ('{"0": {"1": [0, 1], "1": [2, 3]}}', "layer 0 has"),
    ],
)
def test_files_of_kept_experts_that_cannot_be_read(tmp_path, content, message):
    file = tmp_path / "kept.json"
    file.write_text(content)
    with pytest.raises(InvalidInputError, match=message):
        read_kept_experts(str(file), CONFIG)
