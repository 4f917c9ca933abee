"""Metrics, read by Prometheus' own parser."""

from __future__ import annotations

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from sabiyarn_edge.server.metrics import Histogram, Metrics
from tests.server.conftest import Server


def test_histograms_count_up_to_each_bound_inclusively() -> None:
    rng = np.random.default_rng(1)
    bounds = (0.1, 0.5, 1.0)
    values = [*rng.uniform(0, 2, 200).tolist(), *bounds]
    histogram = Histogram(bounds)
    for value in values:
        histogram.observe(value, 3)
    found = {(suffix, labels.get("le")): value for suffix, labels, value in histogram.samples()}
    for bound in bounds:
        assert found["_bucket", str(bound)] == 3 * sum(value <= bound for value in values)
    assert found["_bucket", "+Inf"] == found["_count", None] == 3 * len(values)
    np.testing.assert_allclose(found["_sum", None], 3 * sum(values))


def test_names_of_models_are_escaped() -> None:
    name = 'a"b\\c\nd'
    metrics = Metrics([name])
    metrics.prompt_tokens[name] = 2**53
    families = {family.name: family for family in text_string_to_metric_families(metrics.text({}))}
    [sample] = families["sabiyarn_edge_prompt_tokens"].samples
    assert (sample.labels, sample.value) == ({"model": name}, 2.0**53)


def test_what_is_counted(server: Server) -> None:
    def counts() -> dict[str, float]:
        text = server.get("/metrics").text
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if "le" not in sample.labels and "status" not in sample.labels
        }

    before = counts()
    prompt = list(range(20, 60))
    for stream in (False, True):
        body = {"prompt": prompt, "max_tokens": 5, "n": 2, "stream": stream, "temperature": 1}
        assert server.post("/v1/completions", json=body).status_code == 200
    after = counts()
    more = {name.removeprefix("sabiyarn_edge_"): after[name] - before[name] for name in after}
    assert more["prompt_tokens_total"] == 2 * len(prompt)
    assert more["cached_prompt_tokens_total"] == len(prompt) - 1
    assert more["generated_tokens_total"] == 2 * 2 * 5
    assert more["time_to_first_token_seconds_count"] == 3  # one call, and two streams
    assert more["time_per_token_seconds_count"] == 2 * 2 * 4
    assert more["requests_running"] == more["requests_waiting"] == more["refused_total"] == 0
    assert after["sabiyarn_edge_kv_cache_bytes"] > 0
