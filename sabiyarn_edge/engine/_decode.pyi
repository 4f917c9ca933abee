from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._core import DecodeState, KvCache, StepBuffers
from .rows import Row

Item = tuple[int, list[int], int, Callable[[NDArray[np.float32]], None] | None]

class Droppable(Protocol):
    abandoned: bool

Text = tuple[Droppable, DecodeLoop, list[Row], Callable[[], None]]

class Backend(Protocol):
    @property
    def logits_address(self) -> int: ...
    def compute(self, state: DecodeState) -> None: ...

class Caller(Protocol):
    called: bool

class GraphRunner:
    graph: Any
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
    ) -> None: ...
    @property
    def logits_address(self) -> int: ...
    def logits(self, first: int, count: int) -> NDArray[np.float32]: ...
    def run(
        self, items: list[Item], hidden: NDArray[np.float32] | None = None, options: Any = None
    ) -> None: ...
    def decode(self, texts: list[Text], scheduler: Caller, num_steps: int) -> list[Exception | None]: ...
    def release(self) -> None: ...

class DecodeLoop:
    def __init__(
        self,
        state: DecodeState,
        *,
        before_scores: Callable[[DecodeState], None] | None = None,
        after_scores: Callable[[DecodeState, NDArray[np.float32]], None] | None = None,
        after_choice: Callable[[DecodeState], Sequence[bool]] | None = None,
        no_token_left: Callable[[], Exception] | None = None,
    ) -> None: ...
    def select(self, logits_address: int) -> bool: ...
    def run(self, backend: Backend) -> None: ...
