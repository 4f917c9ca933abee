"""The toy model of toy.py as a Hugging Face model, so that transformers' own generate() decodes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np
import torch
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from sabiyarn_edge import _core_testing
from tests.decoding.toy import TableModel


class ToyConfig(PretrainedConfig):
    model_type = "sabiyarn_edge_toy"


class ToyForCausalLM(PreTrainedModel, GenerationMixin):
    config_class = ToyConfig
    main_input_name = "input_ids"

    def __init__(self, table: TableModel):
        super().__init__(ToyConfig(vocab_size=table.vocab_size))
        self.table = table
        self.anchor = torch.nn.Parameter(torch.zeros(1))  # generate() asks a parameter for the device

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **kwargs: Any) -> dict[str, Any]:
        return {"input_ids": input_ids}

    def forward(self, input_ids: torch.Tensor, attention_mask: Any = None, **kwargs: Any) -> CausalLMOutput:
        rows = np.stack([self.table.logits(ids) for ids in input_ids.tolist()])
        return CausalLMOutput(logits=torch.from_numpy(rows)[:, None, :])


def hf_generate(table: TableModel, prompts: Sequence[Sequence[int]], **options: Any) -> Any:
    """generate()'s output: sequences and, with beams, sequences_scores. Prompts must have one length."""
    functions = {name: options.pop(name, None) for name in ("prefix_allowed_tokens_fn", "stopping_criteria")}
    config = GenerationConfig(
        return_dict_in_generate=True, output_scores=True, use_cache=False, **{"pad_token_id": None, **options}
    )
    ids = torch.tensor(prompts)
    with torch.no_grad():
        return ToyForCausalLM(table).generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=config,
            **functions,
        )


def transition_scores(table: TableModel, output: Any, *, normalize: bool) -> Any:
    """What compute_transition_scores() says of an output of hf_generate."""
    return ToyForCausalLM(table).compute_transition_scores(
        output.sequences, output.scores, getattr(output, "beam_indices", None), normalize_logits=normalize
    )


def stable_topk(scores: torch.Tensor, k: int, dim: int = -1, **_: Any) -> torch.return_types.topk:  # type: ignore[name-defined]
    """torch.topk with a tie rule: the lower index first. torch itself promises no order."""
    values, indices = torch.sort(scores, dim=dim, descending=True, stable=True)
    return torch.return_types.topk((values.narrow(dim, 0, k), indices.narrow(dim, 0, k)))


def our_log_softmax(scores: torch.Tensor, dim: int = -1, **_: Any) -> torch.Tensor:
    """Our log_softmax, so that sums of log-probabilities which tie here tie there as well."""
    rows = np.ascontiguousarray(scores.numpy(), dtype=np.float32).copy()
    for row in rows:
        _core_testing.log_softmax(row)
    return torch.from_numpy(rows)


@contextmanager
def ties_by_index() -> Iterator[None]:
    """transformers with our tie rule and our log_softmax; everything else of it stays."""
    with (
        mock.patch.object(torch, "topk", stable_topk),
        mock.patch.object(torch.nn.functional, "log_softmax", our_log_softmax),
        mock.patch.object(torch.Tensor, "log_softmax", our_log_softmax),
    ):
        yield
