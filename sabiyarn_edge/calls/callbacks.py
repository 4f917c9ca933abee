"""The caller's own functions inside a decode step: logits_processor, prefix_allowed_tokens_fn, stopping_criteria."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .._core import DecodeState
from ..constraints.constraint import Constraint
from ..constraints.rows import ConstrainedRows
from ..errors import InvalidInputError, shown
from ..options.conflicts import forbidding_options
from ..options.generation_config import GenerationConfig
from .tensors import as_array, as_arrays, as_tensor, takes_tensors

__all__ = ["Callbacks"]

LogitsProcessor = Callable[[NDArray[np.int64], NDArray[np.float32]], NDArray[np.float32]]
PrefixAllowedTokens = Callable[[int, NDArray[np.int64]], Sequence[int]]
StoppingCriterion = Callable[[NDArray[np.int64], None], Any]


@dataclass(frozen=True)
class Callbacks:
    """Checked callables of one call. Rows are handed over one by one, without padding."""

    logits_processor: tuple[LogitsProcessor, ...] = ()
    """f(input_ids [1, length], scores [1, vocab_size]) -> scores, after all other processors, before a constraint and
    temperature."""
    prefix_allowed_tokens_fn: PrefixAllowedTokens | None = None
    """f(index of the prompt, input_ids [length]) -> the ids that may come next."""
    stopping_criteria: tuple[StoppingCriterion, ...] = ()
    """f(input_ids [1, length] with the new token, None) -> whether the row ends with it: a bool, or bool [1] as
    transformers' criteria give."""

    @classmethod
    def take_from(cls, options: dict[str, Any]) -> Callbacks:
        """Remove the callables from `options` and check them.

        Raises:
            InvalidInputError: one of them cannot be called.
        """
        prefix = options.pop("prefix_allowed_tokens_fn", None)
        return cls(
            logits_processor=_functions(options, "logits_processor"),
            prefix_allowed_tokens_fn=_callable(prefix, "prefix_allowed_tokens_fn")
            if prefix is not None
            else None,
            stopping_criteria=_functions(options, "stopping_criteria"),
        )

    def hooks(
        self, config: GenerationConfig, constraint: Constraint | None, first_prompt: int = 0
    ) -> dict[str, Any]:
        """Make the hooks for one DecodeLoop; None for what the caller did not give, so that it costs nothing.

        Args:
            config: the call's options.
            constraint: what the output may be.
            first_prompt: what the caller calls the state's first prompt.
        """
        allow = partial(self._allow, first_prompt) if self.prefix_allowed_tokens_fn else None
        # Greedy choice takes the first infinite score; probabilities of infinite scores are none.
        largest = float(np.finfo(np.float32).max) if config.do_sample or config.num_beams > 1 else np.inf
        hooks = {
            "before_scores": allow,
            "after_scores": partial(self._process, largest) if self.logits_processor else None,
            "after_choice": self._judge if self.stopping_criteria else None,
        }
        others = [
            *forbidding_options(config),
            *(name for name in ("prefix_allowed_tokens_fn", "logits_processor") if getattr(self, name)),
        ]
        if constraint is None:
            return {**hooks, "no_token_left": partial(_no_token_left, others)} if others else hooks
        return ConstrainedRows(constraint, config.eos_token_ids, others).hooks(hooks)

    def _allow(self, first_prompt: int, state: DecodeState) -> None:
        assert self.prefix_allowed_tokens_fn is not None
        for row in range(state.num_rows):
            allowed = self.prefix_allowed_tokens_fn(first_prompt + state.prompt_of(row), _history(state, row))
            ids = _ids(allowed, row)
            outside = [token for token in ids if not 0 <= token < state.vocab_size]
            if not ids or outside:
                raise InvalidInputError(
                    f"prefix_allowed_tokens_fn gave {'no ids' if not ids else f'id {outside[0]}'} for row {row}; it "
                    f"must give at least one id of 0 to {state.vocab_size - 1}."
                )
            state.set_allowed_tokens(row, ids)

    def _process(self, largest: float, state: DecodeState, scores: NDArray[np.float32]) -> None:
        for row in range(state.num_rows):
            for index, processor in enumerate(self.logits_processor):
                given = scores[row : row + 1]
                result = _called("logits_processor", processor, _history(state, row)[None], given.copy())
                if result.shape != given.shape or result.dtype.kind != "f":
                    raise InvalidInputError(
                        f"logits_processor {index} ({_name(processor)}) gave {result.dtype} of shape {result.shape} "
                        f"for row {row}; it must give floats of shape {given.shape}."
                    )
                wrong = ~(result <= largest)
                if wrong.any():
                    token = int(wrong[0].argmax())
                    what = "NaN" if np.isnan(result[0, token]) else "infinity"
                    raise InvalidInputError(
                        f"logits_processor {index} ({_name(processor)}) gave {what} for row {row}, token {token}. "
                        "Scores are numbers; -inf forbids a token."
                    )
                given[...] = result

    def _judge(self, state: DecodeState) -> list[bool]:
        stops = []
        for row, token in state.candidates():
            ids = np.append(_history(state, row), np.int64(token))[None]
            stops.append(any(_says_stop(each, row, ids) for each in enumerate(self.stopping_criteria)))
        return stops


def _no_token_left(options: Sequence[str]) -> InvalidInputError:
    return InvalidInputError(
        f"{' and '.join(options)} {'leave' if len(options) > 1 else 'leaves'} no token to choose. Forbid fewer."
    )


def _says_stop(criterion: tuple[int, StoppingCriterion], row: int, ids: NDArray[np.int64]) -> bool:
    index, function = criterion
    result = _called("stopping_criteria", function, ids, None)
    if result.dtype.kind != "b" or result.shape not in ((), (1,)):
        what = shown(result.item()) if result.size == 1 else f"{result.dtype} of shape {result.shape}"
        raise InvalidInputError(
            f"stopping_criteria {index} ({_name(function)}) gave {what} for row {row}; it must give True or False, or "
            "a bool array or tensor of shape (1,)."
        )
    return bool(result.all())


def _called(
    option: str, function: Any, ids: NDArray[np.int64], scores: NDArray[np.float32] | None
) -> NDArray[Any]:
    """Call a caller's function and make its result an array. transformers' classes are given torch tensors."""
    if takes_tensors(function):
        result = function(as_tensor(ids), None if scores is None else as_tensor(scores))
    else:
        result = function(ids, scores)
    return as_array(result, f"what {option} ({_name(function)}) gave")


def _ids(allowed: Any, row: int) -> list[int]:
    try:
        ids = list(as_arrays(allowed, "what prefix_allowed_tokens_fn gave"))
        if any(isinstance(token, bool | np.bool_) for token in ids):
            raise TypeError("a mask, where ids are wanted")
        return [operator.index(token) for token in ids]
    except TypeError:
        raise InvalidInputError(
            f"prefix_allowed_tokens_fn gave {shown(allowed)} for row {row}; it must give a list of ids."
        ) from None


def _functions(options: dict[str, Any], name: str) -> tuple[Any, ...]:
    given = options.pop(name, None)
    if given is None:
        return ()
    functions = tuple(given) if isinstance(given, list | tuple) else (given,)
    return tuple(_callable(function, name) for function in functions)


def _callable(value: Any, name: str) -> Any:
    if not callable(value):
        raise InvalidInputError(
            f"{name} holds a {type(value).__name__}, which cannot be called. Give a function."
        )
    return value


def _history(state: DecodeState, row: int) -> NDArray[np.int64]:
    return np.asarray(state.history_of(row), np.int64)


def _name(function: Any) -> str:
    return str(getattr(function, "__name__", type(function).__name__))
