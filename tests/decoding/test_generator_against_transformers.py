"""The whole chain: a GPTJX torch model decoded by transformers, and its export decoded by EdgeGenerator.

Logits of the two differ by about 5e-6 (tests/test_session.py); a different token would need two candidates nearer
to each other than that, which the seeded cases here do not have.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.modeling import GPTJXForCausalLM
from tests.decoding.option_sets import random_case
from tests.export.models import export_tiny

pytestmark = pytest.mark.filterwarnings(
    "ignore:Unfeasible length constraints", "ignore::sabiyarn_edge.OptionWarning"
)
SCORE_BOUND = {"abs": 1e-4, "rel": 2e-6}
"""Sums of float32 logits' differences; length_penalty -2 scales scores to hundreds, where float32 has steps of 6e-5."""

NO_SEQUENCE = -1e8  # transformers fills up with scores of about -1e9 where it has no sequence to return


class WrappedConfig(PretrainedConfig):
    model_type = "wrapped_gptjx"


class WrappedGPTJX(PreTrainedModel, GenerationMixin):
    """GPTJX as transformers wants a model: every step computes the whole text anew, without a cache."""

    config_class = WrappedConfig
    main_input_name = "input_ids"

    def __init__(self, model: GPTJXForCausalLM) -> None:
        super().__init__(WrappedConfig(vocab_size=model.config.vocab_size))
        self.model = model

    def prepare_inputs_for_generation(self, input_ids: torch.Tensor, **kwargs: Any) -> dict[str, Any]:
        return {"input_ids": input_ids}

    def forward(self, input_ids: torch.Tensor, attention_mask: Any = None, **kwargs: Any) -> CausalLMOutput:
        return CausalLMOutput(logits=self.model(input_ids, logits_to_keep=1).logits)


class Pair:
    """The same random model under transformers and under EdgeGenerator."""

    def __init__(self, folder: Path, vocab_size: int) -> None:
        exported = export_tiny(
            folder, {"vocab_size": vocab_size, "seed": vocab_size}, kv_cache_dtype="float32"
        )
        self.torch_model = WrappedGPTJX(GPTJXForCausalLM.from_pretrained(folder / "checkpoint"))
        self.generator = EdgeGenerator.from_pretrained(exported.folder, num_threads=1)

    def transformers(self, prompts: list[list[int]], **options: Any) -> Any:
        config = GenerationConfig(
            return_dict_in_generate=True, output_scores=True, use_cache=False, pad_token_id=None, **options
        )
        ids = torch.tensor(prompts)
        with torch.no_grad():
            return self.torch_model.generate(
                ids, attention_mask=torch.ones_like(ids), generation_config=config
            )


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Pair]:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    return {size: Pair(tmp_path_factory.mktemp(f"v{size}"), size) for size in (6, 9, 17, 30)}


def forbids_what_it_forces(options: dict[str, Any]) -> bool:
    """Whether a forced id is also suppressed: an error with us, a row without tokens in transformers."""
    forced = {options.get("forced_bos_token_id"), options.get("forced_eos_token_id")} - {None}
    never = set(options.get("suppress_tokens", []))
    first = {options.get("forced_bos_token_id")} & set(options.get("begin_suppress_tokens", []))
    return bool(forced & never or first)


@pytest.mark.parametrize("beams", [False, True], ids=["greedy", "beams"])
@pytest.mark.parametrize("block", range(6))
def test_random_options(pairs: dict[int, Pair], block: int, beams: bool) -> None:
    for seed in range(1000 + block * 20, 1020 + block * 20):
        case = random_case(seed, beams=beams)
        if forbids_what_it_forces(case.options):
            with pytest.raises(InvalidInputError, match="forbids it"):
                pairs[case.vocab_size].generator.generate(case.prompts, **case.options)
            continue
        pair = pairs[case.vocab_size]
        theirs = pair.transformers(case.prompts, **case.options)
        try:
            ours = pair.generator.generate(case.prompts, **case.options)
        except InvalidInputError as error:  # every token was forbidden; transformers goes on with nonsense
            assert "no token to choose" in str(error), case
            assert not beams or any(not score > NO_SEQUENCE for score in theirs.sequences_scores.tolist()), (
                case
            )
            continue
        for padded, mine, length in zip(
            theirs.sequences.tolist(), ours.sequences.tolist(), ours.lengths, strict=True
        ):
            assert padded[:length] == mine[:length], case
            assert len(set(padded[length:])) <= 1, case  # padding
        if beams:
            assert ours.sequences_scores is not None
            assert ours.sequences_scores.tolist() == pytest.approx(
                theirs.sequences_scores.tolist(), **SCORE_BOUND
            ), case


def test_the_calls_that_sabiyarns_users_make(pairs: dict[int, Pair]) -> None:
    pair, prompt = pairs[30], [[3, 1, 4, 1, 5]]
    options = {
        "max_new_tokens": 40,
        "num_beams": 5,
        "length_penalty": 1.2,
        "early_stopping": True,
        "eos_token_id": 2,
    }
    theirs = pair.transformers(prompt, **options)
    ours = pair.generator.generate(prompt, **options)
    assert ours.sequences[0].tolist() == theirs.sequences[0].tolist()
    sampled = pair.generator.generate(
        prompt, max_new_tokens=40, do_sample=True, temperature=0.8, top_p=0.9, repetition_penalty=1.2, seed=1
    )
    assert sampled.lengths == [45]


def test_rows_without_a_sequence(pairs: dict[int, Pair]) -> None:
    """40 ** 8 times a log-probability is far below the -1e9 of "no sequence", which float32 has in steps of 64: the
    first token's candidate ties with it, and transformers may return that token."""
    pair, prompt = pairs[30], [[3, 1, 4, 1, 5]]
    options: dict[str, Any] = {"max_new_tokens": 40, "num_beams": 2, "length_penalty": -8.0}
    theirs = pair.transformers(prompt, num_return_sequences=2, **options)
    ours = pair.generator.generate(prompt, num_return_sequences=2, **options)
    assert ours.sequences.tolist() == theirs.sequences[:, :5].tolist() == prompt * 2
    assert ours.sequences_scores is not None
    assert ours.sequences_scores.tolist() == theirs.sequences_scores.tolist() == [np.float32(-1e9)] * 2
    assert ours.finish_reasons == ["length", "length"]
    torch_ours = pair.torch_model.model.generate(
        torch.tensor(prompt), return_dict_in_generate=True, num_return_sequences=2, **options
    )
    assert torch_ours.finish_reasons == ["length", "length"]
    with pair.generator.stream(prompt, **options) as stream:
        assert all(not token.finish_reason for token in stream)  # tokens that all running beams shared
    assert stream.result is not None and stream.result.finish_reasons == ["length"]
