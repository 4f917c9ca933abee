"""Log-probabilities of choices against uncached torch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import sabiyarn_edge.engine.scheduler as scheduler_module
from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.errors import InvalidInputError
from sabiyarn_edge.modeling import GPTJXForCausalLM
from tests.export.models import Exported, export_tiny
from tests.sliding_oracle import windowed_mask

BLOCK = 64
BOUND = 2e-4  # sums of up to 20 log-probabilities, each of which is off by less than 1e-5 in float32


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_tiny(
        tmp_path_factory.mktemp("model"), {"block_size": BLOCK}, kv_cache_dtype="float32", verify=False
    )


@pytest.fixture(scope="module")
def torch_model(exported: Exported) -> GPTJXForCausalLM:
    return GPTJXForCausalLM.from_pretrained(exported.folder.parent / "checkpoint")


def expected(
    model: GPTJXForCausalLM, prompt: list[int], choices: list[list[int]], window: int = BLOCK, sinks: int = 0
) -> list[float]:
    """Each choice behind its prompt in one uncached forward pass."""
    found = []
    for choice in choices:
        with torch.no_grad():
            mask = torch.from_numpy(windowed_mask(len(prompt + choice), window, sinks))
            logits = model(torch.tensor([prompt + choice]), attn_mask=mask).logits[0]
        log_probs = torch.log_softmax(logits.double(), dim=-1)
        found.append(sum(log_probs[len(prompt) - 1 + i, token].item() for i, token in enumerate(choice)))
    return found


def random_ids(rng: np.random.Generator, exported: Exported, length: int) -> list[int]:
    return rng.integers(0, exported.shape["vocab_size"], length).tolist()


@pytest.mark.parametrize("logits_at_once", [1, 3, 10_000])
@pytest.mark.parametrize("prompt_length", [1, 17, 40])
def test_choices_are_scored_as_torch_scores_them(
    exported: Exported,
    torch_model: GPTJXForCausalLM,
    logits_at_once: int,
    prompt_length: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(scheduler_module, "LOGITS_BYTES", logits_at_once * 4 * exported.shape["vocab_size"])
    rng = np.random.default_rng(prompt_length)
    prompt = random_ids(rng, exported, prompt_length)
    choices = [random_ids(rng, exported, length) for length in (1, 3, 20, 2, 1, 2, 2, 5, 2, 3, 4, 2)]
    choices.append(choices[1][:2])  # the beginning of another one
    generator = EdgeGenerator.from_pretrained(exported.folder, num_threads=1)
    for _ in range(2):  # the second time the prompt is known
        [scores] = generator._choice_log_probs([prompt], [choices])
        np.testing.assert_allclose(scores, expected(torch_model, prompt, choices), rtol=0, atol=BOUND)


def test_a_window_hides_the_same_tokens_from_choices_as_from_generation(
    exported: Exported, torch_model: GPTJXForCausalLM
) -> None:
    rng = np.random.default_rng(3)
    prompt, window, sinks = random_ids(rng, exported, 40), 16, 2
    choices = [random_ids(rng, exported, length) for length in (3, 1, 7)]
    generator = EdgeGenerator.from_pretrained(
        exported.folder, num_threads=1, kv_window=window, num_sink_tokens=sinks
    )
    [scores] = generator._choice_log_probs([prompt], [choices])
    np.testing.assert_allclose(
        scores, expected(torch_model, prompt, choices, window=window, sinks=sinks), rtol=0, atol=BOUND
    )


def test_prompts_run_together_and_give_the_same_bits(exported: Exported) -> None:
    rng = np.random.default_rng(1)
    prompts = [random_ids(rng, exported, length) for length in (5, 30, 1, 22)]
    choices = [[random_ids(rng, exported, length) for length in (2, 1, 6)] for _ in prompts]
    generator = EdgeGenerator.from_pretrained(exported.folder, num_threads=1)
    together = generator._choice_log_probs(prompts, choices)
    alone = [
        EdgeGenerator.from_pretrained(exported.folder, num_threads=1)._choice_log_probs([prompt], [own])[0]
        for prompt, own in zip(prompts, choices, strict=True)
    ]
    np.testing.assert_array_equal(together, alone)


def test_what_does_not_fit_is_refused(exported: Exported) -> None:
    generator = EdgeGenerator.from_pretrained(exported.folder, num_threads=1)
    with pytest.raises(
        InvalidInputError, match="60 tokens and the longest label 5: 65 positions, but there are 64"
    ):
        generator._choice_log_probs([[1] * 60], [[[1] * 5, [2]]])
    generator._choice_log_probs([[1] * 59], [[[1] * 5, [2]]])


def test_a_memory_limit_holds(exported: Exported) -> None:
    roomy = EdgeGenerator.from_pretrained(exported.folder, num_threads=1, max_length=32, memory_limit_mb=500)
    costs = roomy._settings
    needed = costs.choice_bytes(20, 10, 8)
    limit_mb = (costs.costs.shared + needed) / 2**20
    generator = EdgeGenerator.from_pretrained(
        exported.folder, num_threads=1, max_length=32, memory_limit_mb=limit_mb
    )
    generator._choice_log_probs([[1] * 20], [[[1] * 10] * 8])
    with pytest.raises(InvalidInputError, match=r"this call needs .* MiB, but memory_limit_mb is"):
        generator._choice_log_probs([[1] * 20], [[[1] * 12] * 8])
