"""Mutants of masks, choices, requests and the scheduler."""

from __future__ import annotations

from .mutant import Mutant

__all__ = ["MASKS_AND_CALLS"]

MASKED = ("tests/calls/test_attention_masks.py", "tests/test_masked_generation.py")


def _of(file: str, tests: tuple[str, ...], *changes: tuple[str, str]) -> list[Mutant]:
    return [Mutant(file, old, new, tests) for old, new in changes]


MASKS_AND_CALLS = [
    *_of(
        "csrc/core/kv/mask_cache.cpp",
        ("tests/core/kv/test_mask_cache.py",),
        ("width, 1, query + 1);", "width, 1, query);"),
        ("return {data + first * size, size};", "return {data, size};"),
        ("may != 0 ? 0.0F", "may == 0 ? 0.0F"),
        ("positions < 1 || positions > largest_", "positions < 1"),
    ),
    *_of(
        "csrc/core/kernels/attention_visibility.hpp",
        ("tests/core/kernels/test_attention.py",),
        ("position - (window - num_sinks) + 1", "position - window + 1"),
        ("segment.mask_at < 0 ? position + 1 : segment.total", "position + 1"),
        ("if (i > 0) run.first", "run.first"),
        ("std::max(segment.oldest, position", "std::max<std::int64_t>(0, position"),
    ),
    *_of(
        "csrc/core/decoding/choice_automaton.cpp",
        ("tests/constraints/test_choices.py",),
        ("from == kStart && std::binary_search", "std::binary_search"),
        ("leads_on[i] = nodes_[i].is_complete || !found[i].empty();", "leads_on[i] = true;"),
        ("found == known.end() || found->token != token", "found == known.end()"),
        ("if (!is_reached[i]) continue;", ""),
    ),
    *_of(
        "sabiyarn_edge/engine/prompt_mask.py",
        MASKED,
        ("out[:, : self.length] = self.last_row", "pass"),
        ("reach <= np.arange(self.length)", "reach < np.arange(self.length)"),
        ("values[blind, blind] = may", "pass"),
        ("values[:, new] = may_not", "pass"),
        ("np.where(new, np.float32(0), self.last_row[within])", "self.last_row[within]"),
        ("out[...] = self.values[first:end, :end]", "out[...] = self.values[:count, :end]"),
    ),
    *_of(
        "sabiyarn_edge/calls/attention_masks.py",
        MASKED,
        ("mask.values[kept][:, kept]", "mask.values[kept][:, : int(kept.sum())]"),
        ("values[row if len(values) > 1 else 0]", "values[0]"),
        ("return np.asarray(mask == 1)", "return np.asarray(mask == 0)"),
        ("if len(blind):", "if len(blind) > 1:"),
    ),
    *_of(
        "sabiyarn_edge/calls/mask_patterns.py",
        ("tests/calls/test_mask_patterns.py",),
        ("np.cumsum(ends, axis=-1) - ends", "np.cumsum(ends, axis=-1)"),
        ("key > query - window", "key >= query - window"),
        ("key < num_sink_tokens", "key <= num_sink_tokens"),
    ),
    *_of(
        "sabiyarn_edge/calls/request.py",
        (
            "tests/test_generator.py",
            "tests/planning/test_memory_limit.py",
            "tests/calls/test_choices.py",
            "tests/calls/test_request.py",
            *MASKED,
        ),
        ("if tokens > self.kv_window:", "if tokens >= self.kv_window:"),
        ("first = index * config.num_return_sequences", "first = index"),
        ("draws = options.config.do_sample", "draws = False"),
        ("if positions > self.max_length:", "if positions > self.max_length + 1:"),
        ("if total > self._memory_left:", "if needed > self._memory_left:"),
    ),
    *_of(
        "sabiyarn_edge/engine/scheduler.py",
        ("tests/engine/test_engine.py", "tests/planning/test_memory_limit.py"),
        ("if self.live and later < 0:", "if False:"),
        ("+ work.num_rows <= self._max_rows", "<= self._max_rows"),
        ("first += sum(piece.num_logits", "first = sum(piece.num_logits"),
        ("if self._decoder.kept_bytes > later:", "if False:"),
    ),
    *_of(
        "sabiyarn_edge/engine/work.py",
        ("tests/engine/test_engine.py", *MASKED),
        ("keep=keep and self.error is None", "keep=keep"),
        ("if self.abandoned:", "if False:"),
    ),
]
