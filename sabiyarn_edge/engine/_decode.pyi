from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._core import DecodeState, KvCache, StepBuffers

class Backend(Protocol):
    @property
    def logits_address(self) -> int: ...
    def compute(self, state: DecodeState) -> None: ...

class GraphRunner:
    def __init__(
        self,
        session: Any,
        kv_cache: KvCache,
        buffers: StepBuffers,
        *,
        num_layers: int,
        num_heads: int,
        head_dim: int,
        kv_dtype: DTypeLike,
        shrinking_options: Any = None,
        after_shrinking: Callable[[], None] | None = None,
    ) -> None: ...
    @property
    def logits_address(self) -> int: ...
    def logits(self, num_rows: int) -> NDArray[np.float32]: ...
    def prefill(
        self,
        row: int,
        tokens: NDArray[np.int64],
        chunk: int,
        logits_row: int,
        num_logits_rows: int,
        state: DecodeState | None = None,
    ) -> bool: ...
    def forward(self, row: int, tokens: NDArray[np.int64]) -> None: ...
    def compute(self, state: DecodeState) -> None: ...
    def arrange(self, state: DecodeState) -> None: ...
    def run_next(self, state: DecodeState) -> None: ...
    def release(self) -> None: ...

class LookupRunner:
    def __init__(
        self, runner: GraphRunner, *, max_guesses: int, max_ngram: int, max_positions: int
    ) -> None: ...
    num_runs: int
    @property
    def logits_address(self) -> int: ...
    def compute(self, state: DecodeState) -> None: ...
    def arrange(self, state: DecodeState) -> None: ...
    def run_next(self, state: DecodeState) -> None: ...

class DecodeLoop:
    def __init__(
        self,
        state: DecodeState,
        backend: Backend,
        *,
        before_scores: Callable[[DecodeState], None] | None = None,
        after_scores: Callable[[DecodeState, NDArray[np.float32]], None] | None = None,
        after_choice: Callable[[DecodeState], Sequence[bool]] | None = None,
    ) -> None: ...
    def select(self) -> bool: ...
    def compute(self) -> None: ...
    def run(self) -> None: ...
