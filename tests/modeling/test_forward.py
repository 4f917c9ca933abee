"""The uncached forward pass against the NumPy oracle."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.modeling import GPTJXConfig, GPTJXForCausalLM
from tests.modeling.tiny import FLOAT32_BOUND, SHAPES, logits_of, random_ids, tiny_model, tiny_oracle


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("count", [1, 2, 31])
def test_logits_equal_the_oracle(shape, count):
    model, oracle = tiny_model(**shape), tiny_oracle(**shape)
    ids = random_ids(model, 3, count)
    logits = logits_of(model, ids)
    assert logits.shape == (3, count, model.config.vocab_size)
    for row in range(3):
        np.testing.assert_allclose(logits[row], oracle.logits(ids[row]), atol=FLOAT32_BOUND, rtol=0)


def test_float64_differs_from_the_oracle_by_rounding_only():
    model = tiny_model(bias=True).double()
    ids = random_ids(model, 1, 64)
    np.testing.assert_allclose(
        logits_of(model, ids)[0], tiny_oracle(bias=True).logits(ids[0]), atol=1e-12, rtol=0
    )


def test_j_bias_changes_the_result():
    ids = random_ids(tiny_model(), 1, 8)
    assert np.abs(logits_of(tiny_model(), ids) - logits_of(tiny_model(j_bias=False), ids)).max() > 0.1


def test_the_whole_position_table_is_used():
    model, oracle = tiny_model(), tiny_oracle()
    ids = random_ids(model, 1, model.config.block_size)
    np.testing.assert_allclose(logits_of(model, ids)[0], oracle.logits(ids[0]), atol=FLOAT32_BOUND, rtol=0)


@pytest.mark.parametrize("positions", [[[5, 4, 63, 0]], [5, 4, 63, 0], [[5, 4, 63, 0], [0, 1, 2, 3]]])
def test_position_ids(positions):
    model, oracle = tiny_model(), tiny_oracle()
    ids = random_ids(model, 2, 4)
    logits = logits_of(model, ids, position_ids=torch.tensor(positions))
    for row, own in enumerate(np.broadcast_to(positions, (2, 4))):
        expected = oracle.logits(ids[row], positions=own)
        np.testing.assert_allclose(logits[row], expected, atol=FLOAT32_BOUND, rtol=0)


@pytest.mark.parametrize("keep", [1, 3, 9])
def test_logits_to_keep(keep):
    model = tiny_model()
    ids = random_ids(model, 2, 9)
    np.testing.assert_allclose(
        logits_of(model, ids, logits_to_keep=keep), logits_of(model, ids)[:, -keep:], atol=1e-6, rtol=0
    )


def test_int32_ids():
    model = tiny_model()
    ids = random_ids(model, 2, 9)
    np.testing.assert_array_equal(logits_of(model, ids.int()), logits_of(model, ids))


# --- loss ---------------------------------------------------------------------------------------------------


def test_loss_is_the_mean_over_targets_that_count():
    model, oracle = tiny_model(), tiny_oracle()
    ids, targets = random_ids(model, 2, 5), random_ids(model, 2, 5, seed=2)
    targets[0, :2] = -100
    targets[1, 4] = -100
    losses = []
    for row in range(2):
        logits = oracle.logits(ids[row])
        log_probabilities = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
        losses += [-log_probabilities[t, k] for t, k in enumerate(targets[row]) if k != -100]
    output = model(ids, targets=targets)
    assert len(losses) == 7
    assert output.loss.item() == pytest.approx(np.mean(losses), abs=1e-5)
    assert model(ids).loss is None


def test_loss_without_any_counting_target_is_zero_and_moves_nothing():
    model = tiny_model()
    loss = model(random_ids(model, 1, 4), targets=torch.full((1, 4), -100)).loss
    loss.backward()
    assert loss.item() == 0.0
    assert all(not parameter.grad.any() for parameter in model.parameters() if parameter.grad is not None)


def test_gradients_reach_every_parameter_but_those_of_absent_tokens():
    model = tiny_model(bias=True).train()
    model(random_ids(model, 4, 64), targets=random_ids(model, 4, 64, seed=2)).loss.backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in model.parameters())


def test_a_few_steps_of_training_lower_the_loss():
    torch.manual_seed(0)
    config = GPTJXConfig(block_size=16, vocab_size=20, n_layer=2, n_heads=2, n_embd=16, dropout=0.1)
    model = GPTJXForCausalLM(config).train()
    ids = torch.arange(16)[None] % 5
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = model(ids, targets=(ids + 1) % 5).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(math.log(20), abs=0.3)  # a fresh model guesses evenly
    assert losses[-1] < 0.5 * losses[0]


def test_dropout_acts_in_training_only():
    model = tiny_model(dropout=0.5)
    ids = random_ids(model, 1, 8)
    np.testing.assert_array_equal(logits_of(model, ids), logits_of(model, ids))
    model.train()
    assert not np.array_equal(logits_of(model, ids), logits_of(model, ids))


# --- embeddings ---------------------------------------------------------------------------------------------


def test_the_head_is_tied_to_the_token_table():
    model = tiny_model()
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert sum(parameter is model.lm_head.weight for parameter in model.parameters()) == 1


def test_replaced_embeddings_stay_tied_and_may_change_the_vocabulary():
    model = tiny_model()
    embeddings = torch.nn.Embedding(131, model.config.n_embd)
    model.set_input_embeddings(embeddings)
    assert model.get_input_embeddings() is embeddings
    assert model.lm_head.weight is embeddings.weight
    assert model.config.vocab_size == 131
    assert logits_of(model, torch.tensor([[130]])).shape == (1, 1, 131)
    with pytest.raises(InvalidInputError, match=r"7 wide.*n_embd is 16"):
        model.set_input_embeddings(torch.nn.Embedding(131, 7))


# --- bad input ----------------------------------------------------------------------------------------------


def test_a_too_long_input_names_both_numbers():
    model = tiny_model()
    with pytest.raises(InvalidInputError, match=r"65 new tokens make 65 positions, but block_size is 64"):
        model(random_ids(model, 1, 65))


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.zeros(4, dtype=torch.long), r"shape \(4,\)"),
        (torch.zeros(1, 0, dtype=torch.long), r"shape \(1, 0\)"),
        (torch.zeros(0, 3, dtype=torch.long), r"shape \(0, 3\)"),
        (torch.zeros(1, 3), "float32"),
        (torch.zeros(1, 3, dtype=torch.bool), "bool"),
        ([[1, 2]], "input_ids is a list; it must be a tensor"),
        (torch.zeros((1, 2), dtype=torch.int64, device="meta"), "input_ids is a meta tensor"),
        (torch.tensor([[1, 2], [3, 97]]), r"holds 97 \(row 1, token 1\); ids must be in 0 ... 96"),
        (torch.tensor([[-1]]), "holds -1"),
    ],
)
def test_bad_ids(ids, message):
    with pytest.raises(InvalidInputError, match=message):
        tiny_model()(ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"targets": torch.zeros(1, 3, dtype=torch.long)}, r"targets has shape \(1, 3\).*\(1, 4\)"),
        ({"targets": torch.full((1, 4), 97)}, r"holds 97; ids must be in 0 ... 96, or -100"),
        ({"targets": torch.full((1, 4), -1)}, "holds -1"),
        ({"targets": torch.zeros(1, 4, dtype=torch.long), "logits_to_keep": 1}, "Leave one of them out"),
        ({"logits_to_keep": 5}, r"logits_to_keep is 5; it must be in 0 ... 4"),
        ({"logits_to_keep": -1}, "logits_to_keep is -1"),
        ({"position_ids": torch.zeros(1, 3, dtype=torch.long)}, r"position_ids has shape \(1, 3\)"),
        ({"position_ids": torch.full((1, 4), 64)}, r"in 0 ... 63"),
        ({"position_ids": torch.zeros(1, 4)}, "must be integers"),
    ],
)
def test_bad_options(options, message):
    model = tiny_model()
    with pytest.raises(InvalidInputError, match=message):
        model(random_ids(model, 1, 4), **options)
