"""The measures of accuracy run the graph as the package does."""

from __future__ import annotations

import numpy as np
import pytest

from sabiyarn_edge import EdgeGenerator
from sabiyarn_edge.model_folder.config import ModelConfig

accuracy = pytest.importorskip("benchmarks.accuracy", reason="needs a checkout, torch and onnx")


@pytest.fixture(scope="module")
def nano() -> EdgeGenerator:
    return EdgeGenerator.from_pretrained("nano", num_threads=1)


def test_log_probs_are_those_of_scores(nano: EdgeGenerator) -> None:
    from sabiyarn_edge.export.log_probs import log_softmax
    from sabiyarn_edge.export.plain_decoder import PlainDecoder

    folder = nano.folder
    decoder = PlainDecoder(folder, ModelConfig.load(folder), rows=1, capacity=201)
    ids = np.random.default_rng(0).integers(1, 2000, 200).tolist()
    for text in (ids, ids[:70]):  # each begins anew
        found = log_softmax(accuracy.logits_of(decoder, text))
        [score] = nano.score([text])
        # the same bits of logits, whose logarithms are taken in float64 here and in float32 there
        np.testing.assert_allclose(found[np.arange(len(text) - 1), text[1:]], score.log_probs, atol=1e-4)


def test_a_model_is_as_accurate_as_itself(nano: EdgeGenerator) -> None:
    folder = nano.folder
    found = accuracy.accuracy(folder, folder)
    assert (found["mean_kl_divergence"], found["top1_agreement"]) == (0.0, 1.0)
    assert found["logit_spread"] > 1
