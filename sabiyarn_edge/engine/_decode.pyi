from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._core import DecodeState, KvCache, StepBuffers

Item = tuple[int, list[int], int, Callable[[NDArray[np.float32]], None] | None]

class Droppable(Protocol):
    abandoned: bool

class HeldRow(Protocol):
    index: int
    tokens: list[int]

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
        self,
        items: list[Item],
        hidden: NDArray[np.float32] | None = None,
        options: Any = None,
        texts: list[SteadyText] = ...,
    ) -> None: ...
    def decode(self, texts: list[SteadyText], scheduler: Caller, num_steps: int) -> list[SteadyText]: ...
    def choose(self, texts: list[SteadyText]) -> list[SteadyText]: ...
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

class SteadyText:
    @property
    def work(self) -> Any: ...
    @property
    def error(self) -> Exception | None: ...
    @property
    def num_rows(self) -> int: ...
    def __init__(
        self,
        work: Droppable,
        loop: DecodeLoop,
        rows: Sequence[HeldRow],
        *,
        tell: Callable[[], None] | None = None,
        num_steps: int,
    ) -> None: ...

def common_prefix(a: Sequence[int], b: Sequence[int]) -> int: ...
