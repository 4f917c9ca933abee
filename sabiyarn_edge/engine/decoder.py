"""Decoder: a model folder opened under onnxruntime, with its KV cache and its step buffers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .._core import KvCache, MaskCache, StepBuffers
from ..errors import InvalidInputError, ModelFolderError
from ..model_folder.config import ModelConfig
from ..model_folder.graph_nodes import expert_differences, read_nodes
from ..model_folder.weights_file import WeightsHeader
from ..options.checks import integer
from ..planning.memory_plan import MAX_PREFILL_CHUNK, CallCosts, window_slack
from ..system.cpus import usable_cpus
from ..system.memory_errors import ran_out_of_memory
from ..system.process_memory import return_free_memory
from ._decode import GraphRunner
from .operators import register_operators
from .resident_weights import ResidentWeights

__all__ = ["Decoder"]

_DIFFERENCES_NAMED = 5
_FATAL = 4  # onnxruntime's severity, above errors

_Tensor = tuple[str, tuple[int | None, ...]]
"""onnxruntime's name of a type, and sizes; None: any."""


class Decoder:
    """Runs a model folder's decoder graph; owns the keys and values of the rows at hand.

    Args:
        folder: an exported model folder.
        num_threads: threads of the matrix products, at most `usable_cpus()`; None: as many.
        window: the most positions a row keeps; None: all of block_size.
        num_sink_tokens: first positions that are kept when the window is full.
        low_power: threads that wait for work sleep at once instead of spinning for it.
        max_prefill_chunk: most prompt tokens to run at once; fewer take less scratch memory.
        resident: hold the weights in private memory instead of mapping their file.

    Raises:
        ModelFolderError: a file is missing, damaged, or does not belong to the others.
        InvalidInputError: an argument is out of range.
        MemoryError: there is no memory or no address space for it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        num_threads: int | None = None,
        window: int | None = None,
        num_sink_tokens: int = 0,
        low_power: bool = False,
        max_prefill_chunk: int = MAX_PREFILL_CHUNK,
        resident: bool = False,
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
            num_threads = integer(at_least=1, hint="Leave it out to take all CPUs.")(
                "num_threads", num_threads
            )
        # Threads beyond the CPUs at hand only wait for one another: twice as many make a step many times slower.
        cpus = usable_cpus()
        self.num_threads = min(num_threads or cpus, cpus)
        self.low_power = low_power
        self.max_prefill_chunk = max_prefill_chunk
        self.num_sink_tokens = num_sink_tokens

        self.folder = Path(folder)
        self._weights: list[Any] = []  # onnxruntime's tensors over the resident weights
        self._session = self._open(resident)
        self.kv_cache = KvCache(
            num_layers=shape.n_layer,
            num_heads=shape.n_heads,
            head_dim=shape.head_dim,
            dtype=self.config.kv_cache_dtype,
            window=self.window,
            num_sink_tokens=num_sink_tokens,
            slack=window_slack(self.window, shape.block_size),
        )
        self.costs = CallCosts(
            self.folder,
            self.config,
            kv_window=self.window,
            max_prefill_chunk=max_prefill_chunk,
            resident=resident,
        )
        """How much memory calls take."""
        self.buffers = StepBuffers(shape.vocab_size)
        self.causal_masks = MaskCache(largest=shape.block_size)
        self.shrinking_options = _shrinking_run_options()
        """`onnxruntime.RunOptions` for runs whose scratch memory is not needed again."""
        self.runner = GraphRunner(
            self._session,
            self.kv_cache,
            self.buffers,
            num_layers=shape.n_layer,
            num_heads=shape.n_heads,
            head_dim=shape.head_dim,
            kv_dtype=self.config.kv_cache_dtype,
        )

    def _open(self, resident: bool) -> Any:
        """The graph in an onnxruntime session, checked against the folder's other files."""
        content = self.config.read_graph(self.folder)  # raises if it is not what was exported
        graph = self.folder / self.config.graph
        weights = self.folder / self.config.weights_file
        header = WeightsHeader.read(weights)
        if header.weights_hash != self.config.weights_hash:
            raise ModelFolderError(
                f"{weights} belongs to another model: its hash is {header.weights_hash[:12]}..., and config.json "
                f"says {self.config.weights_hash[:12]}.... Copy the whole model folder again."
            )
        size = weights.stat().st_size
        if size != self.config.weights_bytes:
            raise ModelFolderError(
                f"{weights} has {size} bytes, and config.json says {self.config.weights_bytes}. Copy the whole model "
                "folder again."
            )
        session = self._load(graph, ResidentWeights(weights, header) if resident else None)
        self._check(session, graph, content)
        del content
        return_free_memory()  # of parsing the graph
        return session

    def _load(self, graph: Path, weights: ResidentWeights | None) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        register_operators(options)
        if weights is not None:
            self._weights = weights.hand_to(options)
        options.intra_op_num_threads = self.num_threads
        options.inter_op_num_threads = 1
        # Every prompt length has shapes of its own: a memory plan kept for each would grow without bound.
        options.enable_mem_pattern = False
        # What onnxruntime refuses becomes an error of ours, with its words; its log would say it once more.
        options.log_severity_level = _FATAL
        for name, value in _spinning(self.low_power).items():
            options.add_session_config_entry(name, value)
        try:
            with _in_utf8(graph) as name:
                return onnxruntime.InferenceSession(
                    name,
                    options,
                    providers=["CPUExecutionProvider"],
                    enable_fallback=0,  # it prints, and tries the same provider again
                )
        except Exception as error:  # onnxruntime's exceptions share no base class but this
            if ran_out_of_memory(error):
                raise MemoryError(_first_line(error)) from error
            raise ModelFolderError(f"onnxruntime cannot load {graph}: {_first_line(error)}") from error

    def _check(self, session: Any, graph: Path, content: bytes) -> None:
        """Hold the graph's inputs, outputs and experts against config.json: a graph may come from anywhere."""
        try:
            nodes = (
                read_nodes(content) if b"RoutedMlp" in content else []
            )  # 2 ms that dense models are spared
            wrong = [*self._differences(session), *expert_differences(nodes, self.config.gptjx)]
        except (ValueError, TypeError) as error:  # no UTF-8, no number
            raise ModelFolderError(
                f"{graph} is damaged: {_first_line(error)}. Copy the whole model folder again."
            ) from error
        if wrong:
            raise ModelFolderError(
                f"config.json disagrees with {graph.name}: {'; '.join(wrong[:_DIFFERENCES_NAMED])}. Copy the whole "
                "model folder again."
            )

    def _differences(self, session: Any) -> Iterator[str]:
        """In words, where the graph is not the one that config.json describes."""
        metadata = session.get_modelmeta().custom_metadata_map
        block_size = int(metadata.get("block_size", 0))
        if block_size != self.config.gptjx.block_size:
            yield f"block_size is {self.config.gptjx.block_size} there and {block_size} in the graph"
        inputs, outputs = self._contract()
        for kind, stated, nodes in (
            ("input", inputs, session.get_inputs()),
            ("output", outputs, session.get_outputs()),
        ):
            found = {node.name: (node.type, node.shape) for node in nodes}
            for name in sorted(stated.keys() - found.keys()):
                yield f"the graph lacks the {kind} {name}"
            for name in sorted(found.keys() - stated.keys()):
                yield f"the graph has the unknown {kind} {name}"
            for name in stated.keys() & found.keys():
                (dtype, shape), (found_dtype, found_shape) = stated[name], found[name]
                fits = len(shape) == len(found_shape) and all(
                    want is None or want == size for want, size in zip(shape, found_shape, strict=True)
                )
                if dtype != found_dtype or not fits:
                    stated_there = f"{name} is {dtype} {_shown(shape)} there"
                    yield f"{stated_there} and {found_dtype} {_shown(found_shape)} in the graph"

    def _contract(self) -> tuple[dict[str, _Tensor], dict[str, _Tensor]]:
        """Type and shape of each input and output; None: any size."""
        shape = self.config.gptjx
        int64, float32 = "tensor(int64)", "tensor(float)"
        cache = f"tensor({self.config.kv_cache_dtype.replace('float32', 'float')})"
        inputs: dict[str, _Tensor] = {
            "input_ids": (int64, (None,)),
            "position_ids": (int64, (None,)),
            "segments": (int64, (None, 5)),
            "window": (int64, (2,)),
            "attention_mask": (float32, (None,)),
            "logits_index": (int64, (None,)),
        }
        for layer in range(shape.n_layer):
            key = (None, shape.n_heads, None, shape.head_dim, 16)
            inputs[f"past_key_values.{layer}.key"] = (cache, key)
            inputs[f"past_key_values.{layer}.value"] = (cache, (None, shape.n_heads, None, shape.head_dim))
        return inputs, {
            "logits": (float32, (None, shape.vocab_size)),
            "hidden_states": (float32, (None, shape.n_embd)),
        }

    def clear_kv_cache(self) -> None:
        """Zero the keys and values and keep their memory. Nobody may be using them."""
        self.kv_cache.clear()

    def free_kv_cache(self) -> None:
        """Give the memory of keys, values, masks and step buffers back. Nobody may be using them."""
        self.runner.release()
        self.kv_cache.free()
        self.free_buffers()

    @property
    def kept_bytes(self) -> int:
        """Memory that is kept from one run to the next beside keys and values."""
        return self.buffers.nbytes + self.causal_masks.nbytes

    def free_buffers(self) -> None:
        """Give that memory back, between two runs."""
        self.runner.release()
        self.buffers.free()
        self.causal_masks.free()


def _spinning(low_power: bool) -> dict[str, str]:
    """How onnxruntime's threads wait for the next operator.

    They spin, since a step has 100 hand-overs and waking a thread costs more than most of them take; but only inside
    a run: between two calls of ours no CPU is kept busy. With low_power they never spin.
    """
    if low_power:
        return {"session.intra_op.allow_spinning": "0"}
    return {"session.force_spinning_stop": "1"}


@contextmanager
def _in_utf8(path: Path) -> Iterator[str]:
    """A file's name as onnxruntime takes it: UTF-8 in every locale, or where it is none by its folder's handle."""
    try:
        yield os.fsencode(path).decode()
        return
    except UnicodeDecodeError:
        pass
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _shrinking_run_options() -> Any:
    """Options under which onnxruntime gives back, after the run, what its arena grew for it."""
    import onnxruntime

    options = onnxruntime.RunOptions()
    options.log_severity_level = _FATAL
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
    return options


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _shown(shape: Sequence[object]) -> str:
    return f"[{', '.join('any' if size is None else str(size) for size in shape)}]"
