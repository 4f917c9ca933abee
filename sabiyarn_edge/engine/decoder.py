"""Decoder: a model folder opened under onnxruntime, with its KV cache and its step buffers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import DecodeState, KvCache, StepBuffers
from ..calls.attention_masks import PromptMask
from ..errors import InvalidInputError, ModelFolderError
from ..model_folder.config import ModelConfig
from ..model_folder.weight_cache import MIN_WEIGHTS_BYTES, open_cached
from ..model_folder.weights_file import WeightsHeader
from ..options.checks import integer
from ..system.cpus import usable_cpus
from ..system.process_memory import process_memory, return_free_memory
from ._decode import GraphRunner
from .held_text import HeldText
from .masked_runner import MaskedRunner
from .operators import register_operators
from .prefix_cache import PrefixCache, common_prefix

__all__ = [
    "MASKED_SCRATCH_BYTES",
    "MAX_PREFILL_CHUNK",
    "MIN_PREFILL_CHUNK",
    "Decoder",
    "caches_weights",
    "masked_chunk",
]

MASKED_SCRATCH_BYTES = 64 * 2**20
"""What one run of the graph for masks may take for attention scores, bytes."""

MAX_PREFILL_CHUNK = 256
"""Tokens; longer chunks are not faster, and take more memory."""
MIN_PREFILL_CHUNK = 16
"""Tokens; shorter chunks are slower and save next to nothing."""

_MIN_SHARED_HEAD = 16  # tokens; computing fewer once saves less than an extra run costs


def caches_weights(config: ModelConfig, weight_cache: bool | None) -> bool:
    """Whether packed weights are to be kept in the cache folder; None: if the model is large enough."""
    wanted = config.weights_bytes >= MIN_WEIGHTS_BYTES if weight_cache is None else weight_cache
    return wanted and config.packs_weights


def masked_chunk(num_heads: int, capacity: int) -> int:
    """Tokens to prefill at once under a mask, a power of two.

    The graph for masks keeps float32 scores [num_heads, chunk, capacity], and more than as much again in copies: the
    chunk shrinks as capacity grows, so that the scratch stays bounded. (CachedAttention keeps none.)
    """
    affordable = MASKED_SCRATCH_BYTES // (2 * 4 * num_heads * capacity)
    chunk = 1 << max(int(affordable).bit_length() - 1, 0)
    return min(max(chunk, MIN_PREFILL_CHUNK), MAX_PREFILL_CHUNK)


class Decoder:
    """Runs a model folder's decoder graph; owns the keys and values of the rows at hand.

    Args:
        folder: an exported model folder.
        num_threads: threads of the matrix products, at most `usable_cpus()`; None: as many.
        window: the most positions a row keeps; None: all of block_size.
        num_sink_tokens: first positions that are kept when the window is full.
        weight_cache: keep packed weights in a file (see weight_cache.py); None: if the model is large enough.
        prefix_cache_bytes: most that texts' keys and values may take besides the KV cache (see prefix_cache.py).
        low_power: threads that wait for work sleep at once instead of spinning for it.
        max_prefill_chunk: most prompt tokens to run at once; fewer take less scratch memory.

    Raises:
        ModelFolderError: a file is missing, damaged, or does not belong to the others.
        InvalidInputError: an argument is out of range.
    """

    def __init__(
        self,
        folder: Path,
        *,
        num_threads: int | None = None,
        window: int | None = None,
        num_sink_tokens: int = 0,
        weight_cache: bool | None = None,
        low_power: bool = False,
        prefix_cache_bytes: int = 0,
        max_prefill_chunk: int = MAX_PREFILL_CHUNK,
    ) -> None:
        self.config = ModelConfig.load(folder)
        shape = self.config.gptjx
        self.window = shape.block_size if window is None else window
        if not 2 <= self.window <= shape.block_size:
            raise InvalidInputError(
                f"kv_window is {self.window}; it must be between 2 and the model's block_size {shape.block_size}."
            )
        if not 0 <= num_sink_tokens <= self.window - 2:
            raise InvalidInputError(
                f"num_sink_tokens is {num_sink_tokens}; with a window of {self.window} positions it must be between "
                f"0 and {self.window - 2}."
            )
        if num_threads is not None:
            num_threads = integer(at_least=1, hint="None takes all CPUs.")("num_threads", num_threads)
        # Threads beyond the CPUs at hand only wait for one another: twice as many make a step many times slower.
        self.num_threads = min(num_threads or usable_cpus(), usable_cpus())
        self.low_power = low_power
        self.max_prefill_chunk = max_prefill_chunk
        self.num_sink_tokens = num_sink_tokens

        self.folder = Path(folder)
        self.weight_cache = caches_weights(self.config, weight_cache)
        self._session = self._open("decoder")
        self.kv_cache = KvCache(
            num_layers=shape.n_layer,
            num_heads=shape.n_heads,
            head_dim=shape.head_dim,
            dtype=self.config.kv_cache_dtype,
            window=self.window,
            num_sink_tokens=num_sink_tokens,
        )
        self.buffers = StepBuffers(shape.vocab_size)
        self.shrinking_options = _shrinking_run_options()
        """`onnxruntime.RunOptions` for runs whose scratch memory is not needed again."""
        self.runner = self._make_runner(self._session)
        self.text = HeldText(self.kv_cache, shape.n_layer, PrefixCache(prefix_cache_bytes))
        self.reused_tokens = 0
        """Prompt tokens that the last prefill did not compute: they were known, or another row's."""
        self._masked: MaskedRunner | None = None
        self._masked_graph_bytes = 0

    def _make_runner(self, session: Any) -> GraphRunner:
        shape = self.config.gptjx
        return GraphRunner(
            session,
            self.kv_cache,
            self.buffers,
            num_layers=shape.n_layer,
            num_heads=shape.n_heads,
            head_dim=shape.head_dim,
            kv_dtype=self.config.kv_cache_dtype,
            shrinking_options=self.shrinking_options,
            after_shrinking=return_free_memory,
        )

    @property
    def graph(self) -> Any:
        """decoder.onnx's `onnxruntime.InferenceSession`."""
        return self._session

    @property
    def masked_runner(self) -> MaskedRunner:
        """Runs decoder_masked.onnx on the same keys and values; the graph is loaded when first asked for.

        Raises:
            ModelFolderError: its file is missing, damaged, or does not belong to the others.
        """
        if self._masked is None:
            before = process_memory().get("process_anonymous", 0)
            session = self._open("decoder_masked")
            after = process_memory().get("process_anonymous", self.config.weights_bytes)
            self._masked_graph_bytes = max(after - before, 0)
            self._masked = MaskedRunner(
                session,
                self.kv_cache,
                shape=self.config.gptjx,
                kv_dtype=self.config.kv_cache_dtype,
                prefill_options=self.shrinking_options,
            )
        return self._masked

    @property
    def masked_graph_loaded(self) -> bool:
        """Whether `masked_runner` was asked for."""
        return self._masked is not None

    def masked_memory(self) -> dict[str, int]:
        """Bytes that masks take: all 0 until the first one was given."""
        runner = self._masked
        return {
            "masked_graph": self._masked_graph_bytes,
            "masked_buffers": runner.nbytes if runner else 0,
            "mask_cache": runner.causal_masks.nbytes if runner else 0,
        }

    @property
    def providers(self) -> list[str]:
        """onnxruntime's execution providers in use."""
        return list(self._session.get_providers())

    def _open(self, role: str) -> Any:
        """The graph of that role in an onnxruntime session, checked against the folder's other files."""
        self.config.read_graph(self.folder, role)  # raises if it is not what was exported
        graph = self.folder / self.config.graphs[role]
        weights = self.folder / self.config.weights_file
        header = WeightsHeader.read(weights)
        if header.weights_hash != self.config.weights_hash:
            raise ModelFolderError(
                f"{weights} belongs to another model: its hash is {header.weights_hash[:12]}..., and config.json "
                f"says {self.config.weights_hash[:12]}.... Copy the whole model folder again."
            )
        session = None
        if self.weight_cache:
            session = open_cached(graph, weights, self.config.weights_hash, self._load, self._load)
        if session is None:
            session = self._load(graph)
        self._check(session, graph)
        return_free_memory()  # of parsing the graph and of packing
        return session

    def _load(
        self, graph: Path, entries: Mapping[str, str] | None = None, optimized: Path | None = None
    ) -> Any:
        """An onnxruntime session; with more config entries, and writing the optimized graph, if these are given."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        register_operators(options)
        options.intra_op_num_threads = self.num_threads
        options.inter_op_num_threads = 1
        # Every prompt length has shapes of its own: a memory plan kept for each would grow without bound.
        options.enable_mem_pattern = False
        for name, value in _spinning(self.low_power).items():
            options.add_session_config_entry(name, value)
        for name, value in (entries or {}).items():
            options.add_session_config_entry(name, value)
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
            options.log_severity_level = 3  # errors; it warns that the file suits this machine only
        try:
            return onnxruntime.InferenceSession(
                str(graph),
                options,
                providers=["CPUExecutionProvider"],
                enable_fallback=0,  # it prints, and tries the same provider again
            )
        except Exception as error:  # onnxruntime's exceptions share no base class but this
            raise ModelFolderError(f"onnxruntime cannot load {graph}: {_first_line(error)}") from error

    def _check(self, session: Any, graph: Path) -> None:
        """Hold the graph against config.json."""
        try:
            self._compare(session, graph)
        except (ValueError, IndexError, TypeError) as error:  # no UTF-8, no number, fewer dimensions
            raise ModelFolderError(
                f"{graph} is damaged: {_first_line(error)}. Copy the whole model folder again."
            ) from error

    def _compare(self, session: Any, graph: Path) -> None:
        metadata = session.get_modelmeta().custom_metadata_map
        shape = self.config.gptjx
        inputs = {node.name: node for node in session.get_inputs()}
        num_layers = sum(name.endswith(".key") for name in inputs)
        past = inputs.get("past_key_values.0.key")
        kinds = {
            (node.type, len(node.shape), *node.shape[1::2])
            for name, node in inputs.items()
            if name.startswith("past_key_values.")
        }
        if len(kinds) > 1:
            raise ValueError(f"its past_key_values differ from one another: {sorted(map(str, kinds))}")
        found = {
            "n_layer": num_layers,
            "n_heads": past.shape[1] if past else None,
            "head_dim": past.shape[3] if past else None,
            "kv_cache_dtype": past.type.removeprefix("tensor(").removesuffix(")") if past else None,
            "vocab_size": session.get_outputs()[0].shape[-1],
            "block_size": int(metadata.get("block_size", 0)),
        }
        stated = {
            "n_layer": shape.n_layer,
            "n_heads": shape.n_heads,
            "head_dim": shape.head_dim,
            "kv_cache_dtype": self.config.kv_cache_dtype.replace("float32", "float"),
            "vocab_size": shape.vocab_size,
            "block_size": shape.block_size,
        }
        wrong = [
            f"{name} is {stated[name]!r} there and {found[name]!r} in the graph"
            for name in stated
            if found[name] != stated[name]
        ]
        if wrong:
            raise ModelFolderError(
                f"config.json disagrees with {graph.name}: {'; '.join(wrong)}. Copy the whole model folder again."
            )

    def prefill(
        self,
        prompts: Sequence[Sequence[int]],
        state: DecodeState | None = None,
        *,
        reuse_prefix: bool = False,
    ) -> bool:
        """Start anew with one row per prompt and compute the logits of each prompt's last token.

        Prompts are run one by one, in chunks of bounded scratch memory; no padding is involved.

        Args:
            prompts: ids of each prompt, at least one.
            state: asked between chunks whether the run was cancelled or its time is over.
            reuse_prefix: whether prompts begin with what is known of them, and are computed once as far as they begin
                alike; else all of them are computed.

        Returns:
            Whether all prompts were run.
        """
        self.reused_tokens = 0
        positions = min(max(len(prompt) for prompt in prompts), self.window)
        if reuse_prefix:
            starts = self._begin_alike(prompts, positions, state)
            if starts is None:
                return False
        else:
            self.begin(positions, len(prompts))
            starts = [0] * len(prompts)
        return all(
            self.runner.prefill(
                row, np.asarray(prompt[start:], np.int64), self.max_prefill_chunk, row, len(prompts), state
            )
            for row, (prompt, start) in enumerate(zip(prompts, starts, strict=True))
        )

    def _begin_alike(
        self, prompts: Sequence[Sequence[int]], positions: int, state: DecodeState | None
    ) -> list[int] | None:
        """Give each prompt a row with as much of its beginning as is known or computed once for all.

        Returns:
            How many tokens each row holds, at least one less than its prompt; None: the run was interrupted.
        """
        head = min(len(prompt) - 1 for prompt in prompts)
        for prompt in prompts[1:]:
            head = min(head, common_prefix(prompts[0][:head], prompt))
        known = held = self.text.begin(prompts[0][:head], positions)
        if len(prompts) == 1:
            self.reused_tokens = known
            return [known]
        if head - known >= _MIN_SHARED_HEAD:
            tokens = np.asarray(prompts[0][known:head], np.int64)
            if not self.runner.prefill(0, tokens, self.max_prefill_chunk, -1, 1, state):
                return None
            held = head
        if held > 0:
            self.kv_cache.reorder([0] * len(prompts))
        else:
            self.begin(positions, len(prompts))
        starts = [self.text.continue_row(row, prompt[:-1]) for row, prompt in enumerate(prompts)]
        self.reused_tokens = sum(starts) - (held - known)
        return starts

    def rerun(self, row: int, tokens: Sequence[int], state: DecodeState | None = None) -> bool:
        """Forget what `row` holds and run `tokens` into it from position 0, without logits.

        Returns:
            Whether all tokens were run; False if `state` was cancelled or out of time.
        """
        self.kv_cache.restart(row)
        return self.runner.prefill(row, np.asarray(tokens, np.int64), self.max_prefill_chunk, -1, 1, state)

    def begin(self, positions: int, num_rows: int = 1) -> None:
        """Start anew with empty rows that have room for so many positions, at most the window."""
        self.text.release()
        self.kv_cache.reset(num_rows)
        self.kv_cache.reserve(positions)

    def hold(self, tokens: Sequence[int]) -> None:
        """Have the keys and values of `tokens` in the first row; what is known of them is not computed."""
        known = self.text.begin(tokens, min(len(tokens), self.window))
        if known < len(tokens):
            self.runner.prefill(0, np.asarray(tokens[known:], np.int64), self.max_prefill_chunk, -1, 1)
        self.text.remember(tokens)

    def restore(self, tokens: Sequence[int], sides: NDArray[Any]) -> None:
        """Fill a single row with what was saved, and remember its tokens.

        Args:
            tokens: at most the window.
            sides: [n_layer, 2, n_heads, len(tokens), head_dim]: keys and values.
        """
        self.begin(len(tokens))
        if tokens:
            self.text.write(0, sides)
        self.text.remember(tokens)

    def prefill_masked(
        self,
        prompts: Sequence[Sequence[int]],
        masks: Sequence[PromptMask],
        state: DecodeState | None = None,
        whole: Sequence[PromptMask] | None = None,
    ) -> bool:
        """As `prefill`, under each prompt's mask; the logits are the masked_runner's.

        Args:
            whole: masks of the prompts that these are what is left of; None: nothing was dropped.
        """
        runner = self.masked_runner
        self.reused_tokens = 0
        self.begin(max(len(prompt) for prompt in prompts), len(prompts))
        return runner.prefill(prompts, masks, self.masked_chunk, state, whole)

    @property
    def masked_chunk(self) -> int:
        """Most tokens to run at once under a mask, at the KV cache's capacity."""
        return min(masked_chunk(self.config.gptjx.n_heads, self.kv_cache.capacity), self.max_prefill_chunk)

    def clear_kv_cache(self) -> None:
        """Zero the keys and values and keep their memory."""
        self.text.forget()
        self.kv_cache.clear()

    def free_kv_cache(self) -> None:
        """Give the memory of keys, values and step buffers back."""
        self.text.forget()
        self.runner.release()
        if self._masked is not None:
            self._masked.release()
        self.kv_cache.free()
        self.buffers.free()


def _spinning(low_power: bool) -> dict[str, str]:
    """How onnxruntime's threads wait for the next operator.

    They spin, since a step has 100 hand-overs and waking a thread costs more than most of them take; but only inside
    a run: between two calls of ours no CPU is kept busy. With low_power they never spin.
    """
    if low_power:
        return {"session.intra_op.allow_spinning": "0"}
    return {"session.force_spinning_stop": "1"}


def _shrinking_run_options() -> Any:
    """Options under which onnxruntime gives back, after the run, what its arena grew for it."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
