"""Mutants of the decisions in Python: prefix cache, rows, memory plan, seeds, sliding, admission."""

from __future__ import annotations

from .mutant import Mutant

__all__ = ["PYTHON"]


def _of(file: str, tests: tuple[str, ...], *changes: tuple[str, str]) -> list[Mutant]:
    return [Mutant(f"sabiyarn_edge/{file}", old, new, tests) for old, new in changes]


PREFIX = ("tests/engine/test_prefix_cache.py", "tests/engine/test_prefix_reuse.py")
PLAN = ("tests/planning/test_memory_plan.py",)
SLIDING = ("tests/options/test_overflow.py", "tests/engine/test_sliding.py")

PYTHON = [
    *_of(
        "engine/prefix_cache.py",
        PREFIX,
        ("blocks.reverse()", "pass"),
        ("if surplus <= 0:", "if surplus < 0:"),
        ("if id(block) not in pinned]", "]"),
        ("if shared > most:", "if shared >= most:"),
        ("if shared < BLOCK_TOKENS:", "if shared <= BLOCK_TOKENS:"),
        ("found.append(block.key_values[:, :, :, :shared])", "found.append(block.key_values)"),
        ("item[0].used < self._uses and item[0] is not extended", "item[0] is not extended"),
        ("if self.limit_bytes > 0:", "if self.limit_bytes >= 0:"),
        ("more = read(first + shared, first + len(part))", "more = read(first, first + len(part))"),
        ("_drop(list(self._all()), self.nbytes - most_bytes)", "pass"),
    ),
    *_of(
        "engine/rows.py",
        (
            *PREFIX,
            "tests/engine/test_scheduler_schedules.py",
            "tests/engine/test_ring_schedules.py",
            "tests/engine/test_engine.py",
        ),
        ("return common if common == len(row.tokens) or not self.evicted(row) else 0", "return common"),
        ("self.kv_cache.oldest(row.index) > self.kv_cache.num_sink_tokens", "False"),
        ("if not reuse:", "if False:"),
        ("fork.tokens, fork.reusable = row.tokens[:length],", "fork.tokens, fork.reusable = row.tokens,"),
        ("if not row.reusable:", "if False:"),
        ("row.tokens = list(tokens[:cached])", "row.tokens = list(tokens)"),
        ("rows[0] if keep and rows and rows[0].reusable", "rows[0] if keep and rows"),
    ),
    *_of(
        "planning/memory_plan.py",
        PLAN,
        (
            "return 4 * rows * self._config.gptjx.vocab_size",
            "return 2 * rows * self._config.gptjx.vocab_size",
        ),
        ("own = 0 if slides or positions > self._ring else prompt", "own = prompt"),
        ("runs = [(1, 0, prompt), (rows, own, kept)]", "runs = [(1, 0, prompt), (1, own, kept)]"),
        ("if config.do_sample and not config.top_k:", "if config.do_sample:"),
        ("return nbytes * (1 + rows) + written", "return nbytes + written"),
        ("return self.kv_bytes(tokens, tokens, 1) + copied +", "return self.kv_bytes(tokens, tokens, 1) +"),
        ("max(at_prompt + prefill, at_end + decode)", "at_prompt + prefill"),
        ("if plan.peak > limit_mib * MIB:", "if plan.runtime > limit_mib * MIB:"),
    ),
    *_of(
        "calls/decode_options.py",
        ("tests/calls/test_decode_options.py", "tests/decoding/test_generator_against_transformers.py"),
        (
            "return [secrets.randbits(63) if config.do_sample else 0 for _ in range(num_prompts * returns)]",
            "return [secrets.randbits(63) if config.do_sample else 0] * (num_prompts * returns)",
        ),
        ("derived_seed(config.seed, row) for row", "config.seed for row"),
        ("[derived_seed(seed, i) for seed in config.seed", "[seed for seed in config.seed"),
        ("if config.max_new_tokens > room:", "if config.max_new_tokens > room + 1:"),
        ("if config.max_length <= prompt_length:", "if config.max_length < prompt_length:"),
    ),
    *_of(
        "options/overflow.py",
        SLIDING,
        ("slides = -(-surplus // self.dropped)", "slides = surplus // self.dropped"),
        (
            "(num_tokens - 1 - self.positions) % self.dropped == 0",
            "(num_tokens - self.positions) % self.dropped == 0",
        ),
        (
            "[*tokens[: self.keep_tokens], *tokens[len(tokens) - (length - self.keep_tokens) :]]",
            "list(tokens[-length:])",
        ),
        ("if room <= keep_tokens:", "if room < keep_tokens:"),
        ("return self.positions + 1 - num_tokens", "return self.positions - num_tokens"),
    ),
    *_of(
        "calls/request.py",
        ("tests/planning/test_memory_plan.py", "tests/test_generator.py"),
        ("num_prompts * rows_each > self.max_batch_size", "num_prompts > self.max_batch_size"),
        ("return self.memory_limit - self.prefix_cache_bytes -", "return self.memory_limit -"),
        ("max(rows, min(1 + guesses, positions - seen + 1))", "rows"),
    ),
]
