"""How much memory a model will take, told before any of it is allocated.

What is counted is the private memory of the process above `import onnxruntime`: anonymous pages, and the pages that
beams share. Mapped weights are clean pages of a file, which the system drops when it needs them; they are told apart.
The factors below were fitted to measurements over shapes, dtypes, lengths, batches and beams, which
`python -m benchmarks memory` repeats and a test holds to 15 %.
"""

from __future__ import annotations

import dataclasses
import math
import mmap
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError, OutOfMemoryError
from ..model_folder.config import ModelConfig
from ..options.checks import integer, memory_mib
from ..options.fields import MAX_RETURNS
from ..options.generation_config import GenerationConfig
from ..system.available_memory import AvailableMemory

__all__ = [
    "MAX_PREFILL_CHUNK",
    "MIB",
    "MIN_PREFILL_CHUNK",
    "CallCosts",
    "MemoryFitWarning",
    "MemoryPlan",
    "check_room",
    "fit_to_limit",
    "loading_error",
    "plan_memory",
    "ring_size",
    "window_slack",
]

MAX_PREFILL_CHUNK = 256
"""Prompt tokens to run at once; longer chunks are not faster, and take more memory."""
MIN_PREFILL_CHUNK = 16
"""Prompt tokens; shorter chunks are slower and save next to nothing."""
LOGITS_BYTES = 8 * 2**20
"""What the logits of works that want many may take in one run, bytes: 40 rows of SabiYarn-125M's 52050 float32."""
GUESSES_BYTES = 2**20
"""What the logits of guesses that nobody asked for may take in one run, bytes: 5 rows of SabiYarn-125M's."""
MAX_COMMON_GUESSES = 8
"""More of them in a run gain little, also where their logits are small."""
MAX_WINDOW_SLACK = 128
"""Positions by which a full ring is larger than its window: so many tokens, and one more, can be run at once on it."""
RING_STEP = 64
"""A ring's size is a multiple of so many positions, the tiles in which attention reads them."""

# Bytes for each id of the vocabulary that choosing a token takes (csrc/core/selection/):
_COUNTS = 8  # counts and biases of the penalties
_CANDIDATES = 8  # ids and scores
_FILTERS = 17  # weights, keys, order, marks; weights to draw with
_POOL = 16  # candidates of one of several beams

MIB = 2**20

# What constraints take (sabiyarn_edge/constraints/), measured with 2048 and 52050 ids: llguidance's library 1 to 3 MiB,
# a grammar 0.15 to 0.3 MiB, of which 16 are kept; its tables 551 bytes for each id, and 155 more while they are made.
_GRAMMARS = 8 * MIB
_GRAMMAR_TABLES = 720  # for each id
_CHOICES = 10 * MIB  # automata of 16 lists of choices
_CHOICE_TABLES = 40  # for each id: bytes and their order
_CONSTRAINED_ROW = 64 * 1024  # its place in the grammar
MIN_CAPACITY = 256  # positions: the KV cache's first allocation
MIN_WINDOW = 64  # positions: fit_to_limit goes no lower


class MemoryFitWarning(UserWarning):
    """The prefill chunk or the window was made smaller to fit into a memory limit, as asked."""


@dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Bytes that a model takes for one call of generate of a given shape, in a fresh process."""

    max_length: int
    """Positions of each row: prompt and output."""
    prompt_length: int
    """Of them the prompt's."""
    batch: int
    """Prompts at once."""
    beams: int
    """Rows of each prompt: beams, or returned sequences."""
    kv_window: int
    """Most positions whose keys and values are kept."""
    prefill_chunk: int
    """Prompt tokens that are run at once."""
    weights_mapped: int
    """Weights in files that are mapped: clean pages, shared by all processes, dropped when memory is short."""
    weights_private: int
    """Weights that `resident` copies into the process's own memory."""
    runtime: int
    """The graph in onnxruntime, the tokenizer and Python's modules."""
    kv_cache: int
    """Keys and values at the end of the call."""
    logits: int
    """Scores of the vocabulary, of every row, and what choosing tokens takes."""
    prefix_cache: int
    """Keys and values of earlier texts: all that the pool may take."""
    scratch: int
    """What the largest run of the graph takes and gives back."""
    peak: int
    """The most memory at any time: at the end of the prompt, or at the end of the call."""

    @property
    def peak_mib(self) -> float:
        """`peak` in MiB."""
        return self.peak / MIB

    def to_dict(self) -> dict[str, int]:
        """All fields, ready for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        weights = {"weights, mapped": (self.weights_mapped, "clean and shared; not in the sums below")}
        if self.weights_private:
            weights = {"weights, private": (self.weights_private, "resident")}
        rows = {
            **weights,
            "runtime": (self.runtime, "graph, tokenizer, modules"),
            "KV cache": (self.kv_cache, f"{self.batch * self.beams} x {self.kept} positions"),
            "logits": (self.logits, ""),
            **({"prefix cache": (self.prefix_cache, "earlier texts")} if self.prefix_cache else {}),
            "scratch": (self.scratch, f"up to {self.prefill_chunk} prompt tokens at once"),
            "peak": (self.peak, "above `import onnxruntime`"),
        }
        return "\n".join(
            f"{name:<20}{size / MIB:9.1f} MiB  {note}".rstrip() for name, (size, note) in rows.items()
        )

    @property
    def kept(self) -> int:
        """Positions of a row whose keys and values are kept at the end."""
        return min(self.max_length, self.kv_window)


def plan_memory(
    folder: Path,
    *,
    max_length: int | None = None,
    prompt_length: int | None = None,
    batch: int = 1,
    beams: int = 1,
    kv_window: int | None = None,
    max_prefill_chunk: int = MAX_PREFILL_CHUNK,
    prefix_cache_bytes: int = 0,
    guesses: bool = True,
    resident: bool = False,
) -> MemoryPlan:
    """Predict what a call of generate takes. Reads config.json; loads and allocates nothing.

    Args:
        folder: an exported model folder.
        max_length: positions of a row, prompt and output; None: the model's block_size.
        prompt_length: of them the prompt's; None: all but one, which takes the most.
        batch: prompts at once.
        beams: beams or returned sequences of each prompt.
        kv_window: as for EdgeGenerator.from_pretrained.
        max_prefill_chunk: most prompt tokens to run at once.
        prefix_cache_bytes: most that earlier texts' keys and values may take.
        guesses: whether prompt lookup may take memory for guesses, which it does where there is room.
        resident: whether the weights are copied into private memory.

    Raises:
        ModelFolderError: a file is missing or damaged.
        InvalidInputError: an argument is out of range.
    """
    config = ModelConfig.load(folder)
    shape = config.gptjx
    most = shape.block_size
    positions = integer(at_least=2, at_most=most, hint=f"The model's block_size is {most}.")
    length = most if max_length is None else positions("max_length", max_length)
    window = most if kv_window is None else positions("kv_window", kv_window)
    batch = integer(at_least=1)("batch", batch)
    beams = integer(at_least=1, at_most=MAX_RETURNS)("beams", beams)
    prompt = length - 1
    if prompt_length is not None:
        prompt = integer(at_least=1, at_most=length, hint=f"max_length is {length}.")(
            "prompt_length", prompt_length
        )

    costs = CallCosts(
        folder,
        config,
        kv_window=window,
        max_prefill_chunk=min(max_prefill_chunk, batch * prompt),
        resident=resident,
    )
    alone = costs.alone(
        prompts=batch,
        prompt=prompt,
        positions=length,
        rows=beams,
        tokens=beams,
        guesses=costs.guessing if guesses and beams == 1 else 0,
    )
    return MemoryPlan(
        max_length=length,
        prompt_length=prompt,
        batch=batch,
        beams=beams,
        kv_window=window,
        prefill_chunk=costs.max_prefill_chunk,
        weights_mapped=0 if resident else config.weights_bytes,
        weights_private=costs.private_weights,
        runtime=costs.runtime,
        kv_cache=alone.kv_cache,
        logits=alone.logits,
        prefix_cache=prefix_cache_bytes,
        scratch=alone.scratch,
        peak=alone.peak + prefix_cache_bytes,
    )


def fit_to_limit(
    folder: Path, limit_mib: float, *, fit: bool, **options: Any
) -> tuple[MemoryPlan, list[str]]:
    """A plan within a limit, and in words what was made smaller for it.

    Args:
        limit_mib: most memory of the process above `import onnxruntime`, MiB.
        fit: first halve the prefill chunk, then the window, until the plan is within the limit; False: change nothing.
        options: as for `plan_memory`.

    Raises:
        InvalidInputError: the model needs more, with both numbers.
    """
    limit_mib = memory_mib("memory_limit_mb", limit_mib)
    options["guesses"] = False  # they take what is left of the limit, or are not made
    wanted = plan = plan_memory(folder, **options)
    for smaller in _smaller(wanted, options) if fit else ():
        if plan.peak <= limit_mib * MIB:
            break
        plan = plan_memory(folder, **smaller)
    if plan.peak > limit_mib * MIB:
        raise InvalidInputError(
            f"memory_limit_mb is {limit_mib:g}, but {folder} needs {plan.peak_mib:.1f} MiB for "
            f"{plan.batch * plan.beams} row(s) of {plan.kept} positions. {_advice(plan, limit_mib, fit)}"
        )
    chosen = []
    if plan.prefill_chunk < wanted.prefill_chunk:
        chosen.append(f"prefill in chunks of {plan.prefill_chunk} tokens instead of {wanted.prefill_chunk}")
    if plan.kv_window < wanted.kv_window:
        chosen.append(f"kv_window {plan.kv_window} instead of {wanted.kv_window}")
    return plan, chosen


def check_room(folder: Path, *, resident: bool = False, root: Path = Path("/")) -> None:
    """Refuse to load a model for which there is no memory, rather than have the system kill the process.

    Args:
        folder, resident: as for `plan_memory`.
        root: where /proc and /sys are.

    Raises:
        OutOfMemoryError: loading takes more than the machine or the control group has left, swap included.
    """
    memory = AvailableMemory.read(root)
    if memory.here is None:
        return
    left = memory.here + memory.free_swap
    needed = plan_memory(folder, max_length=2, prompt_length=1, resident=resident).peak
    if needed > left:
        limit = (
            f" (its control group's limit is {memory.group_limit / MIB:.0f})" if memory.group_limit else ""
        )
        raise OutOfMemoryError(
            f"loading {folder} takes {needed / MIB:.1f} MiB, and this process can take {left / MIB:.1f} more{limit}. "
            "End other programs, add swap, or raise the limit. `sabiyarn-edge plan` tells more; memory_limit_mb "
            "(--memory-limit) puts a number of yours in place of this."
        )


def loading_error(folder: Path, error: BaseException, *, resident: bool = False) -> OutOfMemoryError:
    """What to raise if loading ran out of memory or of address space, with what it takes.

    Args:
        error: what came.
        resident: as for `plan_memory`.
    """
    try:
        plan = plan_memory(folder, max_length=2, prompt_length=1, resident=resident)
        needed = (
            f"that takes {plan.peak / MIB:.1f} MiB, and address space for {plan.weights_mapped / MIB:.1f} MiB of "
            f"mapped weights ({error or 'none is left'})"
        )
    except MemoryError:
        needed = "not even to read its config.json"
    return OutOfMemoryError(
        f"there is no memory to load {folder}: {needed}. End other programs, add swap, or raise the limit (ulimit -v)."
    )


def _advice(plan: MemoryPlan, limit_mib: float, fit: bool) -> str:
    loading = plan.runtime + plan.weights_private
    if loading > limit_mib * MIB:
        instead = ", or leave resident out, so that the weights are mapped" if plan.weights_private else ""
        return f"Loading it alone takes {loading / MIB:.1f} MiB: allow {math.ceil(plan.peak_mib)}{instead}."
    parts = f"{plan.kv_cache / MIB:.1f} MiB are keys and values, {plan.scratch / MIB:.1f} scratch"
    if plan.prefix_cache:
        parts += f", {plan.prefix_cache / MIB:.1f} the prefix cache"
    if fit:
        least = math.ceil(plan.peak_mib)
        return f"{parts}, with the smallest prefill chunk and window: allow {least}, or give fewer rows."
    smaller = "max_length, a smaller prefix_cache_mb" if plan.prefix_cache else "max_length"
    return f"{parts}: give a smaller {smaller} or fewer rows, or fit=True for a smaller prefill chunk and window."


def _smaller(plan: MemoryPlan, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Options of ever smaller plans: chunks give up speed only, a window gives up what lies before it."""
    chunk = plan.prefill_chunk
    while chunk > MIN_PREFILL_CHUNK:
        chunk = max(1 << (chunk - 1).bit_length() - 1, MIN_PREFILL_CHUNK)
        yield {**options, "max_prefill_chunk": chunk}
    window = plan.kept
    while window > MIN_WINDOW:
        window = max(1 << (window - 1).bit_length() - 1, MIN_WINDOW)
        yield {**options, "max_prefill_chunk": MIN_PREFILL_CHUNK, "kv_window": window}


@dataclass(frozen=True, kw_only=True)
class Alone:
    """Bytes that a call takes with nothing beside it; the fields are those of a MemoryPlan."""

    kv_cache: int
    logits: int
    scratch: int
    peak: int


class CallCosts:
    """What calls of a model take; made once per model, so that asking costs microseconds.

    Args:
        folder, config: the model.
        kv_window: most positions that a token sees.
        max_prefill_chunk: prompt tokens that are run at once.
        resident: whether the weights are copied into private memory.
    """

    def __init__(
        self,
        folder: Path,
        config: ModelConfig,
        *,
        kv_window: int,
        max_prefill_chunk: int,
        resident: bool = False,
    ) -> None:
        self._config, self.max_prefill_chunk = config, max_prefill_chunk
        shape = config.gptjx
        self._heads = 2 * shape.n_layer * shape.n_heads  # keys' and values'
        self._slot = config.kv_bytes_per_token // self._heads  # one head's keys, or values, of one position
        self._ring = ring_size(kv_window, config.gptjx.block_size)
        self.runtime = _runtime(folder, config)
        self.private_weights = config.weights_bytes if resident else 0

    def alone(
        self,
        *,
        prompt: int,
        positions: int,
        rows: int,
        tokens: int,
        prompts: int = 1,
        slides: bool = False,
        guesses: int = 0,
        config: GenerationConfig | None = None,
    ) -> Alone:
        """What a call takes with nothing beside it, the model included.

        While the last prompts are run, the first ones take their next tokens. What an operator keeps of the largest run
        is there at the end, too.

        Args:
            prompt, positions, rows, tokens, slides: of each of its prompts, as for `request`.
            prompts: how many.
            guesses: bytes of those that nobody asked for.
            config: how tokens are chosen; None: greedily.
        """
        chunk = self.max_prefill_chunk
        first = prompts - 1 if prompts * prompt > chunk else 0  # are read when the last prompt is run
        prefill = self.scratch(chunk + first * tokens)
        decode = self.scratch(prompts * tokens, kept=chunk) + guesses
        logits = self.logits(prompts * tokens) + self.choosing(config or GenerationConfig())
        begun = min(prompt + 1, positions)
        at_end = prompts * self.kv_bytes(prompt, positions, rows, slides)
        at_prompt = at_end  # if its positions are used again, by runs like a prompt's
        if not slides:
            at_prompt = self.kv_bytes(prompt, begun, 1) * (prompts - first)
            at_prompt += self.kv_bytes(prompt, begun, rows) * first
        return Alone(
            kv_cache=at_end,
            logits=logits,
            scratch=max(prefill, decode),
            peak=self.runtime + self.private_weights + logits + max(at_prompt + prefill, at_end + decode),
        )

    def request(self, *, prompt: int, positions: int, rows: int, tokens: int, slides: bool) -> int:
        """What one prompt takes beside what all share, but for `choosing` and `masks`, bytes.

        Args:
            prompt, positions: tokens of the prompt, and most tokens of a row.
            rows: beams or returned sequences.
            tokens: of its decode steps, rows or guesses, each with logits.
            slides: whether positions are used again for other tokens.
        """
        return self.kv_bytes(prompt, positions, rows, slides) + self.logits(tokens) + self.scratch(tokens)

    def choosing(self, config: GenerationConfig) -> int:
        """What choosing tokens takes for one prompt: scores, counts and orders of the vocabulary, one row at a time."""
        per_id = _COUNTS + (_CANDIDATES if config.do_sample else 0)
        if config.do_sample and not config.top_k:
            per_id += _FILTERS + (_POOL * config.num_beams if config.num_beams > 1 else 0)
        rows = max(config.num_beams, config.num_return_sequences) if config.constraint else 0
        masks = rows * (self._config.gptjx.vocab_size // 8 + _CONSTRAINED_ROW)
        return per_id * self._config.gptjx.vocab_size + masks

    @property
    def common_guesses(self) -> int:
        """Most guesses in one run that prompt lookup makes unasked, of all texts together."""
        return min(max(GUESSES_BYTES // self.logits(1), 1), MAX_COMMON_GUESSES)

    @property
    def guessing(self) -> int:
        """What these guesses take, bytes."""
        return self.logits(self.common_guesses) + self.scratch(self.common_guesses)

    def constraints(self, option: str) -> int:
        """What all calls with a constraint of this option share from the first one on."""
        if option == "choices":
            return _CHOICES + _CHOICE_TABLES * self._config.gptjx.vocab_size
        return _GRAMMARS + _GRAMMAR_TABLES * self._config.gptjx.vocab_size

    def masks(
        self,
        nbytes: int,
        *,
        runs: Iterable[tuple[int, int]],
        decode: tuple[int, int],
        rows: int,
        multi_token: bool,
    ) -> int:
        """What the mask of one prompt takes.

        Args:
            nbytes: of its values.
            runs: of the prompt: (tokens that are seen, tokens).
            decode: the same of the last decode step.
            rows: that slide, each with a mask of its own then.
            multi_token: whether decode steps run several tokens of a row, whose causal masks are kept in bytes.
        """
        runs = [*runs, decode]
        together = max(count for _, count in runs)
        extra = self.scratch(together) - self.scratch(self.max_prefill_chunk)
        causal = (1 << (decode[0] - 1).bit_length()) ** 2 if multi_token else 0
        written = 4 * max(seen * count for seen, count in runs)
        return nbytes * (1 + rows) + written + max(extra, 0) + causal

    def scoring(self, tokens: int) -> int:
        """What a text takes whose logits or hidden states are all wanted, bytes."""
        most = max(LOGITS_BYTES // (4 * self._config.gptjx.vocab_size), 1)
        return self.kv_bytes(tokens, tokens, 1) + self.logits(min(tokens, most, self.max_prefill_chunk))

    def holding(self, tokens: int) -> int:
        """What a text takes of whose keys and values a copy is made, bytes."""
        config = self._config
        copied = tokens * config.kv_bytes_per_token
        return self.kv_bytes(tokens, tokens, 1) + copied + copied // (2 * config.gptjx.n_layer)

    @property
    def shared(self) -> int:
        """What all calls share: the model, and the scratch of the largest run."""
        return self.runtime + self.private_weights + self.scratch(self.max_prefill_chunk)

    def kv_bytes(self, prompt: int, positions: int, rows: int, slides: bool = False) -> int:
        """Keys and values of one prompt's rows.

        Only pages that are written take memory, and each head's part of a buffer begins a page (256 positions of 64
        bytes are 4), or shares one with its neighbours where pages are larger: what counts is whole pages, not the
        capacity. Beams share the pages of their prompt, and have the page where it ends, and what follows, each; on
        Linux only, and only if a row's part of a buffer is whole pages. Where slots are used again, each row comes to
        have a page of its own in place of each shared one, which stays.
        """
        slot, page, heads = self._slot, mmap.PAGESIZE, self._config.gptjx.n_heads
        prompt, kept = min(prompt, self._ring), min(positions, self._ring)
        row_bytes = heads * _capacity(kept, self._ring) * slot
        runs = [(rows, 0, kept)]  # (how many, first and last position)
        if rows > 1 and sys.platform.startswith("linux") and row_bytes % page == 0:
            own = 0 if slides or positions > self._ring else prompt
            runs = [(1, 0, prompt), (rows, own, kept)]
        pages = sum(
            count * min(heads * (-(-end * slot // page) - first * slot // page), -(-row_bytes // page))
            for count, first, end in runs
        )
        return self._heads // heads * pages * page

    def logits(self, rows: int) -> int:
        """float32 scores of `rows` rows."""
        return 4 * rows * self._config.gptjx.vocab_size

    def scratch(self, tokens: int, *, kept: int = 0) -> int:
        """One run of `tokens` new tokens. Attention keeps no scores: it is hidden states [tokens, 4 * n_embd] float32
        that count. onnxruntime's arena and the kernels' rounded copies hold 1.6 to 2.1 times as much, and now and then
        2.8 times, where chunks of 256 tokens leave holes (of widths 256 to 1024, at 512). With 2.4, what was measured
        is at most 5 % above its plan.

        RoutedMlp holds, for each of a token's experts, inputs and outputs [n_embd] and the hidden layer [mlp_width], in
        float32 and in 8 bits; the arena then has no hidden states. It keeps them for the next run.

        Args:
            kept: tokens of an earlier run.
        """
        shape = self._config.gptjx
        hidden = 4 * 4 * shape.n_embd
        routed = shape.num_experts_per_tok * (5 * shape.mlp_width + 8 * shape.n_embd) if shape.use_moe else 0
        arena = hidden * 12 // 5 - min(routed, hidden)
        return tokens * arena + max(tokens, kept) * routed


def window_slack(window: int, block_size: int) -> int:
    """Positions by which a full ring is larger than the window; 0 for rows that never evict."""
    return min(window, MAX_WINDOW_SLACK) if window < block_size else 0


def ring_size(window: int, block_size: int) -> int:
    """Most positions that a row of the KV cache holds, as KvCache lays it out."""
    size = window + window_slack(window, block_size)
    return -(-size // RING_STEP) * RING_STEP


def _capacity(positions: int, ring: int) -> int:
    """What the KV cache's buffers are laid out for: doubled from MIN_CAPACITY, at most the ring."""
    capacity = min(MIN_CAPACITY, ring)
    while capacity < positions:
        capacity = min(2 * capacity, ring)
    return capacity


def _runtime(folder: Path, config: ModelConfig) -> int:
    """Graph, kernels and Python's modules; and the tokenizer, whose tables take several times its file.

    Measured after the first call: 6.4 to 6.6, 7.1 to 7.5 and 8.1 to 8.3 MiB with 2, 8 and 16 layers.
    """
    tokenizer = folder / "tokenizer.json"
    text = tokenizer.stat().st_size if tokenizer.is_file() else 0
    return 66 * MIB // 10 + config.gptjx.n_layer * 110 * 1024 + 8 * text
