from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .._core import DecodeState, Guesser, KvCache, StepBuffers

MaskWriter = Callable[[NDArray[np.float32]], None]
Item = tuple[int, list[int], int, MaskWriter | None]

class Droppable(Protocol):
    abandoned: bool

class HeldRow(Protocol):
    index: int
    tokens: list[int]
    def cut(self, length: int) -> None: ...

class Backend(Protocol):
    @property
    def logits_address(self) -> int: ...
    def compute(self, state: DecodeState) -> None: ...

class Caller(Protocol):
    called: bool

class GraphRunner:
    graph: Any
    common_guesses: int
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
    def prepare(self, texts: list[SteadyText], others: int) -> int: ...
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
    def __init__(
        self,
        work: Droppable,
        loop: DecodeLoop,
        rows: Sequence[HeldRow],
        *,
        masks: list[MaskWriter] | None = None,
        tell: Callable[[], None] | None = None,
        num_steps: int,
        guesser: Guesser | None = None,
        shares_room: bool = False,
        positions: int = 0,
    ) -> None: ...

def common_prefix(a: Sequence[int], b: Sequence[int]) -> int: ...
