"""Inputs in Hugging Face's forms: tensors, encodings, its config, processors and criteria."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from sabiyarn_edge import EdgeGenerator, GenerationConfig, OptionWarning
from sabiyarn_edge.errors import InvalidInputError

IDS = [5, 6, 7]


@pytest.fixture(scope="module")
def generator(text_model: Path) -> EdgeGenerator:
    return EdgeGenerator.from_pretrained(text_model, num_threads=1)


@pytest.fixture(scope="module")
def expected(generator: EdgeGenerator) -> list[int]:
    return generator.generate(IDS, max_new_tokens=6).generated[0]


@pytest.mark.parametrize(
    "inputs",
    [
        torch.tensor(IDS),
        torch.tensor([IDS]),
        torch.tensor([IDS], dtype=torch.int32),
        [torch.tensor(IDS)],
        np.array([IDS], np.uint16),
        {"input_ids": [IDS], "attention_mask": [[1, 1, 1]]},
        transformers.BatchEncoding({"input_ids": torch.tensor([IDS]), "attention_mask": torch.ones(1, 3)}),
    ],
)
def test_tensors_and_encodings(generator: EdgeGenerator, expected: list[int], inputs: Any) -> None:
    if isinstance(inputs, transformers.BatchEncoding):
        inputs["attention_mask"] = inputs["attention_mask"].long()
    assert generator.generate(inputs, max_new_tokens=6).generated == [expected]
    if not isinstance(inputs, list | np.ndarray | torch.Tensor):
        assert generator.generate(**inputs, max_new_tokens=6).generated == [expected]


def test_padded_and_ragged_encodings(generator: EdgeGenerator, expected: list[int]) -> None:
    other = generator.generate([8], max_new_tokens=6).generated[0]
    padded = {
        "input_ids": torch.tensor([IDS, [0, 0, 8]]),
        "attention_mask": torch.tensor([[1, 1, 1], [0, 0, 1]]),
    }
    ragged = {"input_ids": [IDS, [8]], "attention_mask": [[1, 1, 1], [1]]}
    for encoding in (padded, ragged):
        assert generator.generate(**encoding, max_new_tokens=6).generated == [expected, other]


def test_what_else_an_encoding_holds_is_named(generator: EdgeGenerator, expected: list[int]) -> None:
    with pytest.warns(OptionWarning, match="left out token_type_ids"):
        found = generator.generate(input_ids=[IDS], token_type_ids=[[0, 0, 0]], max_new_tokens=6)
    assert found.generated == [expected]


def test_tensors_that_hold_no_ids_are_refused(generator: EdgeGenerator) -> None:
    for wrong in (
        torch.tensor(5),
        torch.zeros(1, 2, 3, dtype=torch.int64),
        torch.tensor([0.5]),
        torch.tensor([]),
    ):
        with pytest.raises(InvalidInputError):
            generator.generate(wrong)


def test_their_config(generator: EdgeGenerator) -> None:
    theirs = transformers.GenerationConfig(max_new_tokens=4, do_sample=True, temperature=0.7, use_cache=False)
    assert GenerationConfig.of(theirs) == GenerationConfig(max_new_tokens=4, do_sample=True, temperature=0.7)
    assert generator.generate(IDS, theirs).lengths == [7]
    # Their default length of 20 was asked for by nobody.
    assert GenerationConfig.of(transformers.GenerationConfig()) == GenerationConfig()


def test_their_processors_and_criteria_get_tensors(generator: EdgeGenerator) -> None:
    processors = transformers.LogitsProcessorList(
        [
            transformers.SuppressTokensLogitsProcessor(range(300)),
            transformers.RepetitionPenaltyLogitsProcessor(2.0),
        ]
    )
    expected = generator.generate(
        IDS, max_new_tokens=6, suppress_tokens=list(range(300)), repetition_penalty=2.0
    )
    found = generator.generate(IDS, max_new_tokens=6, logits_processor=processors)
    assert found.generated == expected.generated
    criteria = transformers.StoppingCriteriaList([transformers.MaxLengthCriteria(5)])
    assert generator.generate(IDS, max_new_tokens=6, stopping_criteria=criteria).lengths == [5]
    end = transformers.EosTokenCriteria(found.generated[0][1])
    ended = generator.generate(IDS, max_new_tokens=6, logits_processor=processors, stopping_criteria=end)
    assert ended.generated == [found.generated[0][:2]]


def test_functions_of_ones_own_get_arrays(generator: EdgeGenerator) -> None:
    seen = []

    def process(ids: Any, scores: Any) -> Any:
        seen.append((type(ids), type(scores)))
        return torch.from_numpy(scores)  # what comes back may be either

    generator.generate(IDS, max_new_tokens=1, logits_processor=process)
    assert seen == [(np.ndarray, np.ndarray)]
