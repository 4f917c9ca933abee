"""Nothing but weights is held until a cached or masked step needs more."""

from __future__ import annotations

import torch

from sabiyarn_edge.modeling import GPTJXConfig, GPTJXForCausalLM
from tests.data.make_tiny_checkpoint import make_tiny_checkpoint
from tests.modeling.tiny import logits_of, random_ids, tiny_model

NOTHING = {"kv_cache": 0, "causal_masks": 0}


def beyond_weights(model):
    return {purpose: size for purpose, size in model.memory_usage().items() if purpose != "weights"}


def test_no_buffers_at_all():
    assert list(tiny_model(bias=True).buffers()) == []


def test_construction_and_loading_hold_weights_only(tmp_path):
    loaded = GPTJXForCausalLM.from_pretrained(make_tiny_checkpoint(tmp_path, traps=["mask-buffers"]))
    for model in (tiny_model(), loaded):
        assert beyond_weights(model) == NOTHING
        assert model.memory_usage()["weights"] == 4 * sum(p.numel() for p in model.parameters())
        assert list(model.buffers()) == []


def test_training_and_uncached_evaluation_hold_weights_only():
    model = tiny_model().train()
    model(random_ids(model, 2, 20), targets=random_ids(model, 2, 20)).loss.backward()
    logits_of(model.eval(), random_ids(model, 2, 20))
    assert beyond_weights(model) == NOTHING


def test_ordinary_cached_steps_make_no_mask():
    model = tiny_model()
    logits_of(model, random_ids(model, 1, 20), use_cache=True)
    for _ in range(5):
        logits_of(model, random_ids(model, 1, 1), use_cache=True)
    # 2 sides * 2 layers * 64 positions * 16 wide * 4 bytes
    assert beyond_weights(model) == {"kv_cache": 16384, "causal_masks": 0}
    logits_of(model, random_ids(model, 1, 2), use_cache=True)  # several tokens after a past
    assert beyond_weights(model) == {"kv_cache": 16384, "causal_masks": 64 * 64}
    model.clear_kv_cache()
    assert beyond_weights(model)["kv_cache"] == 16384
    model.free_kv_cache()
    assert beyond_weights(model) == NOTHING


def test_the_default_config_is_built_without_positions_squared():
    """A mask of 32768 positions would be 1 GiB; on the meta device nothing is real, so sizes are exact."""
    with torch.device("meta"):
        model = GPTJXForCausalLM(GPTJXConfig())
    weights = model.memory_usage()["weights"]
    assert weights == 4 * (52050 * 768 + 32768 * 768 + 12 * (12 * 768**2 + 3 * 768) + 768)
    assert beyond_weights(model) == NOTHING
