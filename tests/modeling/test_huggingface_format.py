"""What save_pretrained writes is a Hugging Face folder: transformers loads it, and what transformers saves we load."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from sabiyarn_edge.model_folder.config import GPTJXConfig
from sabiyarn_edge.modeling import GPTJXForCausalLM
from tests.modeling.tiny import SHAPES, logits_of, random_ids, tiny_model

transformers = pytest.importorskip("transformers")


class HuggingFaceConfig(transformers.PretrainedConfig):
    model_type = "gptjx"

    def __init__(self, j_bias=True, **values):
        super().__init__(**values)
        self.j_bias = j_bias


class HuggingFaceGPTJX(transformers.PreTrainedModel):
    """GPTJX as a model of transformers: same attribute names, transformers' own loading and saving."""

    config_class = HuggingFaceConfig
    _tied_weights_keys = ("lm_head.weight",)

    def __init__(self, config):
        super().__init__(config)
        ours = GPTJXForCausalLM(GPTJXConfig.from_dict(config.to_dict()), j_bias=config.j_bias)
        self.transformer, self.lm_head = ours.transformer, ours.lm_head
        self.post_init()

    def get_input_embeddings(self):
        return self.transformer.wte

    def get_output_embeddings(self):
        return self.lm_head

    def _init_weights(self, module):
        """Nothing: a weight that is not loaded must show."""


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_transformers_loads_what_we_save(tmp_path, shape):
    model = tiny_model(**shape)
    model.save_pretrained(tmp_path)
    theirs, report = HuggingFaceGPTJX.from_pretrained(tmp_path, j_bias=model.j_bias, output_loading_info=True)
    assert not any(report.values()), report
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(theirs.state_dict()[name], tensor, rtol=0, atol=0)
    assert theirs.config.n_heads == model.config.n_heads


@pytest.mark.parametrize("shards", ["1GB", "5KB"], ids=["whole", "sharded"])
def test_we_load_what_transformers_saves(tmp_path, shards):
    model = tiny_model()
    model.save_pretrained(tmp_path / "ours")
    theirs = HuggingFaceGPTJX.from_pretrained(tmp_path / "ours", j_bias=True)
    theirs.save_pretrained(tmp_path / "theirs", max_shard_size=shards)
    assert json.loads((tmp_path / "theirs/config.json").read_text())["model_type"] == "gptjx"
    again = GPTJXForCausalLM.from_pretrained(tmp_path / "theirs")
    ids = random_ids(model, 1, 9)
    np.testing.assert_array_equal(logits_of(again, ids), logits_of(model, ids))
