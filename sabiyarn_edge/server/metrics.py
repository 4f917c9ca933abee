"""Metrics in Prometheus' text format.

Source: https://prometheus.io/docs/instrumenting/exposition_formats (version 0.0.4).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

__all__ = ["CONTENT_TYPE", "Histogram", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

PREFIX = "sabiyarn_edge_"
FIRST_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
TOKEN_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)


class Histogram:
    """Counts of values up to each bound.

    Args:
        bounds: ascending.
    """

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self._counts = [0] * (len(self.bounds) + 1)  # of each interval, the last without a bound
        self._sum = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count a value, so many times."""
        self._counts[bisect_left(self.bounds, value)] += times
        self._sum += value * times

    def samples(self) -> Iterable[tuple[str, dict[str, str], float]]:
        """Suffix, further labels and value of each sample."""
        total = 0
        for bound, count in zip((*map(str, self.bounds), "+Inf"), self._counts, strict=True):
            total += count
            yield "_bucket", {"le": bound}, total
        yield "_sum", {}, self._sum
        yield "_count", {}, total


class Metrics:
    """What the server counts, for each model."""

    def __init__(self, models: Iterable[str]) -> None:
        self.models = list(models)
        self.prompt_tokens: Counter[str] = Counter()
        self.cached_tokens: Counter[str] = Counter()
        self.generated_tokens: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.responses: Counter[int] = Counter()
        """By HTTP status."""
        self.first_token = {model: Histogram(FIRST_TOKEN_SECONDS) for model in self.models}
        self.per_token = {model: Histogram(TOKEN_SECONDS) for model in self.models}

    def text(self, gauges: Mapping[str, Mapping[str, float]]) -> str:
        """All metrics.

        Args:
            gauges: for each model that is loaded what is now: "running", "waiting", "kv_cache_bytes",
                "prefix_cache_bytes".
        """
        lines: list[str] = []
        for gauge, name, meaning in (
            ("running", "requests_running", "Prompts that are being run."),
            ("waiting", "requests_waiting", "Prompts that wait for a free row."),
            ("kv_cache_bytes", "kv_cache_bytes", "Bytes that keys and values take."),
            ("prefix_cache_bytes", "prefix_cache_bytes", "Bytes that earlier texts' keys and values take."),
        ):
            values = {model: of_model[gauge] for model, of_model in gauges.items()}
            lines += _family(name, "gauge", meaning, values)
        for counter, name, meaning in (
            (self.prompt_tokens, "prompt_tokens_total", "Tokens of prompts, cached ones included."),
            (
                self.cached_tokens,
                "cached_prompt_tokens_total",
                "Tokens of prompts that were not computed anew.",
            ),
            (self.generated_tokens, "generated_tokens_total", "Tokens generated."),
            (self.refused, "refused_total", "Requests that were refused because the queue was full."),
        ):
            values = {model: float(counter[model]) for model in self.models}
            lines += _family(name, "counter", meaning, values)
        lines += _head("responses_total", "counter", "HTTP responses by status.")
        lines += [
            _line("responses_total", {"status": str(status)}, count)
            for status, count in sorted(self.responses.items())
        ]
        for histograms, name, meaning in (
            (self.first_token, "time_to_first_token_seconds", "From the request to its first token."),
            (self.per_token, "time_per_token_seconds", "Time of each later token, the mean of its request."),
        ):
            lines += _head(name, "histogram", meaning)
            lines += [
                _line(name + suffix, {"model": model, **labels}, value)
                for model, histogram in histograms.items()
                for suffix, labels, value in histogram.samples()
            ]
        return "\n".join([*lines, ""])


def _family(name: str, kind: str, meaning: str, values: Mapping[str, float]) -> list[str]:
    return [
        *_head(name, kind, meaning),
        *(_line(name, {"model": model}, value) for model, value in values.items()),
    ]


def _head(name: str, kind: str, meaning: str) -> list[str]:
    return [f"# HELP {PREFIX}{name} {meaning}", f"# TYPE {PREFIX}{name} {kind}"]


def _line(name: str, labels: Mapping[str, str], value: float) -> str:
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{PREFIX}{name}{{{shown}}} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
