"""How much memory a model will take, told before any of it is allocated.

What is counted is memory of the process's own, above `import onnxruntime`: anonymous pages, and the pages that beams
share. Mapped weights are clean pages of a file, which the system drops when it needs them; they are told apart.
The factors below were fitted to measurements over shapes, dtypes, lengths, batches and beams, which
`python -m benchmarks memory` repeats and holds to 15 %.
"""

from __future__ import annotations

import dataclasses
import mmap
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..engine.decoder import MAX_PREFILL_CHUNK, MIN_PREFILL_CHUNK, caches_weights, masked_chunk
from ..errors import InvalidInputError, OutOfMemoryError
from ..model_folder.config import GPTJXConfig, ModelConfig
from ..model_folder.packed_weights import PackedWeights
from ..model_folder.weight_cache import is_cached
from ..options.checks import integer, number
from ..system.available_memory import AvailableMemory

if TYPE_CHECKING:
    from ..calls.attention_masks import PromptMask

__all__ = [
    "MIB",
    "MemoryFitWarning",
    "MemoryPlan",
    "check_call",
    "check_room",
    "fit_to_limit",
    "plan_memory",
]

MIB = 2**20
MIN_CAPACITY = 256  # positions: the KV cache's first allocation
_CERTAINLY_ENOUGH = 4  # times the weights: float16 ones are widened, and held twice while they are packed
_CERTAINLY_ENOUGH_BESIDES = 256 * MIB
_MASKED_LAYER_BYTES = 400 * 1024  # of decoder_masked.onnx in onnxruntime: twice the nodes of decoder.onnx
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
    weights_anonymous: int
    """Weights in the process's own memory: those packed at load, unless the weight cache has them."""
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
    loading: int
    """What loading takes and gives back: the packed copy of the largest matrix; all of them when the weight cache
    is made."""
    later_loading: int
    """`loading` once the weight cache is made."""
    running: int
    """The most memory once it is loaded: at the end of the prompt, or at the end of the call."""
    peak: int
    """The most memory at any time: while loading, or running."""

    @property
    def peak_mib(self) -> float:
        """`peak` in MiB."""
        return self.peak / MIB

    def to_dict(self) -> dict[str, int]:
        """All fields, ready for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        rows = {
            "weights, mapped": (self.weights_mapped, "clean and shared; not in the sums below"),
            "weights, anonymous": (self.weights_anonymous, ""),
            "runtime": (self.runtime, "graph, tokenizer, modules"),
            "KV cache": (self.kv_cache, f"{self.batch * self.beams} x {self.kept} positions"),
            "logits": (self.logits, ""),
            **({"prefix cache": (self.prefix_cache, "earlier texts")} if self.prefix_cache else {}),
            "scratch": (self.scratch, f"up to {self.prefill_chunk} prompt tokens at once"),
            "while loading": (self.loading, f"given back before the first token{self._later}"),
            "peak": (self.peak, "above `import onnxruntime`"),
        }
        return "\n".join(
            f"{name:<20}{size / MIB:9.1f} MiB  {note}".rstrip() for name, (size, note) in rows.items()
        )

    @property
    def _later(self) -> str:
        if self.later_loading == self.loading:
            return ""
        return f"; {self.later_loading / MIB:.1f} MiB from the second load on"

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
    weight_cache: bool | None = None,
    max_prefill_chunk: int = MAX_PREFILL_CHUNK,
    prefix_cache_bytes: int = 0,
) -> MemoryPlan:
    """Predict what a call of generate takes. Reads config.json and the graph; loads and allocates nothing.

    Args:
        folder: an exported model folder.
        max_length: positions of a row, prompt and output; None: the model's block_size.
        prompt_length: of them the prompt's; None: all but one, which takes the most.
        batch: prompts at once.
        beams: beams or returned sequences of each prompt.
        kv_window, weight_cache: as for EdgeGenerator.from_pretrained.
        max_prefill_chunk: most prompt tokens to run at once.
        prefix_cache_bytes: most that earlier texts' keys and values may take.

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
    batch, beams = integer(at_least=1)("batch", batch), integer(at_least=1)("beams", beams)
    prompt = min(length - 1, window)
    if prompt_length is not None:
        prompt = integer(at_least=1, at_most=length, hint=f"max_length is {length}.")(
            "prompt_length", prompt_length
        )

    weights = _Weights.read(folder, config, weight_cache)
    kept_of_prompt, kept = min(prompt, window), min(length, window)
    chunk = min(max_prefill_chunk, kept_of_prompt)
    rows = batch * beams
    logits = _logits(shape, rows)
    prefill_scratch = _scratch(config, chunk)
    decode_scratch = _scratch(config, rows)
    prompt_kv = batch * _kv_bytes(config, [(1, 0, kept_of_prompt)])
    kv_cache = batch * _kv_bytes(
        config, _kept_runs(config, kept_of_prompt, kept, beams, _capacity(kept, window))
    )
    runtime = _runtime(folder, config)
    held = runtime + weights.anonymous
    running = held + logits + prefix_cache_bytes + max(prompt_kv + prefill_scratch, kv_cache + decode_scratch)
    return MemoryPlan(
        max_length=length,
        prompt_length=prompt,
        batch=batch,
        beams=beams,
        kv_window=window,
        prefill_chunk=chunk,
        weights_mapped=weights.mapped,
        weights_anonymous=weights.anonymous,
        runtime=runtime,
        kv_cache=kv_cache,
        logits=logits,
        prefix_cache=prefix_cache_bytes,
        scratch=max(prefill_scratch, decode_scratch),
        loading=weights.loading,
        later_loading=weights.later_loading,
        running=running,
        peak=max(held + weights.loading, running),
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
    limit_mib = number(above=0)("memory_limit_mb", limit_mib)
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


def check_call(
    folder: Path,
    limit_mib: float,
    *,
    masks: Sequence[PromptMask] | None = None,
    masked_graph_loaded: bool = False,
    **options: Any,
) -> None:
    """Refuse a call of generate, with a model that is loaded, whose plan is above the limit.

    Args:
        masks: of the prompts; None: causal.
        masked_graph_loaded: by an earlier call.
        options: as for `plan_memory`.

    Raises:
        InvalidInputError: the call needs more, with both numbers.
    """
    plan = plan_memory(folder, **options)
    needed, remedy = plan.running, "Give fewer prompts or beams at once, or fewer new tokens."
    config = ModelConfig.load(folder)
    if masks is not None and "decoder_masked" in config.graphs:
        weights = _Weights.read(folder, config, options["weight_cache"], "decoder_masked")
        graph = config.gptjx.n_layer * _MASKED_LAYER_BYTES + weights.anonymous
        calling = plan.logits + plan.prefix_cache + plan.kv_cache + _masked_scratch(config, plan, masks)
        loaded = plan.runtime + plan.weights_anonymous + graph
        needed = loaded + max(calling, 0 if masked_graph_loaded else weights.loading)
        remedy = f"attn_mask needs a second graph, which takes {graph / MIB:.1f} of them, and more scratch. {remedy}"
    if needed > limit_mib * MIB:
        raise InvalidInputError(
            f"this call needs {needed / MIB:.1f} MiB for {plan.batch} prompt(s), {plan.beams} row(s) each, of "
            f"{plan.max_length} positions, but memory_limit_mb is {limit_mib:g}. {remedy}"
        )


def check_room(folder: Path, *, weight_cache: bool | None, root: Path = Path("/")) -> None:
    """Refuse to load a model for which there is no memory, rather than have the system kill the process.

    Args:
        folder, weight_cache: as for `plan_memory`.
        root: where /proc and /sys are.

    Raises:
        OutOfMemoryError: loading takes more than the machine or the control group has left, swap included.
    """
    memory = AvailableMemory.read(root)
    if memory.here is None:
        return
    left = memory.here + memory.free_swap
    if left > _CERTAINLY_ENOUGH * ModelConfig.load(folder).weights_bytes + _CERTAINLY_ENOUGH_BESIDES:
        return  # by far the usual case, which need not read the graph
    needed = plan_memory(folder, max_length=2, prompt_length=1, weight_cache=weight_cache).peak
    if needed > left:
        limit = (
            f" (its control group's limit is {memory.group_limit / MIB:.0f})" if memory.group_limit else ""
        )
        raise OutOfMemoryError(
            f"loading {folder} takes {needed / MIB:.1f} MiB, and this process can take {left / MIB:.1f} more{limit}. "
            "End other programs, add swap, raise the limit, or export it with fewer bits. "
            "`sabiyarn-edge plan` tells more; memory_limit_mb (--memory-limit) puts a number of yours in place of this."
        )


def _advice(plan: MemoryPlan, limit_mib: float, fit: bool) -> str:
    loaded = plan.weights_anonymous + plan.runtime
    if loaded + plan.loading > limit_mib * MIB:
        needed = f"Loading it alone takes {(loaded + plan.loading) / MIB:.1f} MiB"
        if plan.later_loading < plan.loading:
            later = (loaded + plan.later_loading) / MIB
            return (
                f"{needed} the first time, when the weight cache is made, and {later:.1f} later: load it once without "
                "a limit, or export it with fewer bits."
            )
        if plan.weights_anonymous:
            return f"{needed}: let the weight cache keep the weights, or export it with fewer bits."
        return f"{needed}, {plan.loading / MIB:.1f} of them for a moment: allow that, or export it with fewer bits."
    parts = f"{plan.kv_cache / MIB:.1f} MiB are keys and values, {plan.scratch / MIB:.1f} scratch"
    if plan.prefix_cache:
        parts += f", {plan.prefix_cache / MIB:.1f} the prefix cache"
    if fit:
        return f"{parts}, with the smallest prefill chunk and window: allow that, or give fewer rows."
    return f"{parts}: give a smaller max_length or fewer rows, or fit=True for a smaller prefill chunk and window."


def _smaller(plan: MemoryPlan, options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Options of ever smaller plans: chunks give up speed only, a window gives up what lies before it."""
    chunk = plan.prefill_chunk
    while chunk > MIN_PREFILL_CHUNK:
        chunk = max(1 << (chunk - 1).bit_length() - 1, MIN_PREFILL_CHUNK)
        yield {**options, "max_prefill_chunk": chunk}
    window = plan.kept
    while window > MIN_WINDOW:
        window = max(1 << (window - 1).bit_length() - 1, MIN_WINDOW)
        prompt = options.get("prompt_length")
        yield {
            **options,
            "max_prefill_chunk": MIN_PREFILL_CHUNK,
            "kv_window": window,
            "prompt_length": None if prompt is None else min(prompt, window),
        }


@dataclass(frozen=True)
class _Weights:
    """Where a model's weights will be, bytes."""

    mapped: int
    anonymous: int
    loading: int
    later_loading: int
    """`loading` once the weight cache has them."""

    @classmethod
    def read(
        cls, folder: Path, config: ModelConfig, weight_cache: bool | None, role: str = "decoder"
    ) -> _Weights:
        config.read_graph(folder, role)  # raises if it is not what was exported
        graph, weights = folder / config.graphs[role], folder / config.weights_file
        packed = PackedWeights.of(graph)
        cached = (
            is_cached(graph, weights, config.weights_hash) if caches_weights(config, weight_cache) else None
        )
        if cached is None:
            return cls(
                mapped=packed.read_as_stored,
                anonymous=packed.total,
                loading=packed.float16,
                later_loading=packed.float16,
            )
        # One matrix is packed at a time, to be compared with what the file has.
        one = packed.largest + packed.largest // 10 + 2 * MIB
        # Until they are written, onnxruntime holds all packed matrices, and all that it made float32 of.
        first = packed.total + 2 * packed.float16 + one
        return cls(
            mapped=packed.read_as_stored + packed.total,
            anonymous=0,
            loading=one if cached else first,
            later_loading=one,
        )


def _capacity(positions: int, window: int) -> int:
    """What the KV cache's buffers are laid out for: doubled from MIN_CAPACITY, at most the window."""
    capacity = min(MIN_CAPACITY, window)
    while capacity < positions:
        capacity = min(2 * capacity, window)
    return capacity


def _kv_bytes(config: ModelConfig, runs: list[tuple[int, int, int]]) -> int:
    """Keys and values: runs (count, first, end) of positions in each head's part of each buffer.

    Only pages that are written take memory, and each head's part of a buffer begins a page (256 positions of 64
    bytes are 4): what counts is whole pages, not the capacity.
    """
    heads, slot = 2 * config.gptjx.n_layer * config.gptjx.n_heads, _slot_bytes(config)
    pages = sum(
        count * (-(-end * slot // mmap.PAGESIZE) - first * slot // mmap.PAGESIZE)
        for count, first, end in runs
    )
    return heads * pages * mmap.PAGESIZE


def _kept_runs(
    config: ModelConfig, prompt: int, kept: int, beams: int, capacity: int
) -> list[tuple[int, int, int]]:
    """Beams share the pages of their prompt, and have the page where it ends, and what follows, each.

    On Linux only, and only if a row's part of a buffer is whole pages.
    """
    row_bytes = config.gptjx.n_heads * capacity * _slot_bytes(config)
    if beams > 1 and sys.platform.startswith("linux") and row_bytes % mmap.PAGESIZE == 0:
        return [(1, 0, prompt), (beams, prompt, kept)]
    return [(beams, 0, kept)]


def _slot_bytes(config: ModelConfig) -> int:
    """One head's keys, or values, of one position."""
    return config.kv_bytes_per_token // (2 * config.gptjx.n_layer * config.gptjx.n_heads)


def _logits(shape: GPTJXConfig, rows: int) -> int:
    # float32 scores, and one array as large in which the likeliest are looked for.
    return 2 * 4 * rows * shape.vocab_size


def _scratch(config: ModelConfig, tokens: int) -> int:
    """One run of `tokens` new tokens. CachedAttention keeps no scores: it is hidden states [tokens, 4 * n_embd] float32
    that count. They lie in onnxruntime's arena 2.25 times; 3.5 times where norms and GELU are operators of their own.
    """
    return 4 * tokens * 4 * config.gptjx.n_embd * (14 if config.packs_weights else 9) // 4


def _masked_scratch(config: ModelConfig, plan: MemoryPlan, masks: Sequence[PromptMask]) -> int:
    """The largest run of decoder_masked.onnx, which attends with one operator after the other in float32.

    A prompt's first run keeps its scores [n_heads, tokens, tokens] twice, later ones theirs with the cache's capacity
    four times (past, new, both, and their softmax). A decode step has three float32 copies of each row's keys and
    values, and as much again lies in the arena between pieces of another size.
    """
    shape, capacity = config.gptjx, _capacity(plan.kept, plan.kv_window)
    chunk = min(masked_chunk(shape.n_heads, capacity), plan.prefill_chunk)
    decode = 6 * 4 * plan.batch * plan.beams * capacity * shape.n_embd
    prefill = (
        (16 * (capacity + count) if first else 8 * count) * shape.n_heads * count
        + 4 * count * 4 * shape.n_embd * 17 // 4
        for mask in masks
        for first, count in mask.chunks(chunk)
    )
    return max(decode, *prefill)


def _runtime(folder: Path, config: ModelConfig) -> int:
    """Graph, kernels and Python's modules; and the tokenizer, whose tables take several times its file."""
    tokenizer = folder / "tokenizer.json"
    text = tokenizer.stat().st_size if tokenizer.is_file() else 0
    layer = 200 * 1024 if config.packs_weights else 70 * 1024  # twice the nodes, and their packed matrices
    return 5 * MIB + config.gptjx.n_layer * layer + 8 * text
