"""SabiYarnLM: an exported model for EleutherAI's lm-evaluation-harness (extra [harness]).

from lm_eval import simple_evaluate
from sabiyarn_edge.evaluate.harness import SabiYarnLM

simple_evaluate(SabiYarnLM("model-int8"), tasks=["afrimmlu_direct_yor"])
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..calls.scoring import Scoring
from ..errors import InvalidInputError
from ..generator import EdgeGenerator
from ..options.overflow import Overflow
from ..system.installation import install_command

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ModuleNotFoundError as error:
    raise InvalidInputError(
        f"the harness is not installed ({error.name} is missing): {install_command('harness')}"
    ) from error

__all__ = ["SabiYarnLM"]

MAX_NEW_TOKENS = 256
"""Where a task does not say."""
_TOGETHER = 32


@register_model("sabiyarn_edge")
class SabiYarnLM(LM):  # type: ignore[misc]
    """Scores and continues texts for the harness.

    Args:
        pretrained: a model folder, or nano. It needs a tokenizer.
        num_threads: None: all CPUs at hand.

    Raises:
        ModelFolderError: the model cannot be loaded.
        InvalidInputError: it has no tokenizer.
    """

    def __init__(self, pretrained: str | Path = "nano", num_threads: int | None = None, **_: Any) -> None:
        super().__init__()
        self._generator = EdgeGenerator.from_pretrained(pretrained, num_threads=num_threads)
        if self._generator.tokenizer is None:
            raise InvalidInputError(f"{pretrained} has no tokenizer. Put the model's tokenizer.json into it.")
        self._tokenizer = self._generator.tokenizer

    def loglikelihood(self, requests: Sequence[Instance], **_: Any) -> list[tuple[float, bool]]:
        """Log-probability of a continuation after its context, and whether greedy search would give it.

        White space at the context's end belongs to the continuation, as the harness has it. What is longer than the
        positions loses the context's beginning.
        """
        pairs = [self._encoded(*request.args) for request in requests]
        return [
            (total, greedy)
            for total, greedy in self._scored(
                [context for context, _ in pairs], [after for _, after in pairs]
            )
        ]

    def loglikelihood_rolling(self, requests: Sequence[Instance], **_: Any) -> list[float]:
        """Log-probability of whole texts; a longer one slides over the model's positions."""
        texts = [self._tokenizer.encode(request.args[0]) for request in requests]
        start = self._start
        return [total for total, _ in self._scored([[start]] * len(texts), texts, overflow="slide")]

    def generate_until(self, requests: Sequence[Instance], **_: Any) -> list[str]:
        """Continue contexts until one of the strings of `until`."""
        prompts = []
        for request in requests:
            context, wanted = request.args
            options = dict(wanted)
            stop = options.pop("until", None) or []
            new_tokens = options.pop("max_gen_toks", MAX_NEW_TOKENS)
            options.pop("truncation", None)
            config = self._generator.generation_config.updated(
                **{
                    "max_new_tokens": new_tokens,
                    "stop_strings": [stop] if isinstance(stop, str) else stop or None,
                },
                **_drawing(options),
            )
            room = self._generator.max_length - new_tokens
            if room < 1:
                raise InvalidInputError(
                    f"max_gen_toks is {new_tokens}, but the model has {self._generator.max_length} positions."
                )
            ids = self._tokenizer.encode(context) or [self._start]
            prompts.append((ids[-room:], config))
        return [result.text or "" for result in self._generator._map(iter(prompts), _TOGETHER, {})]

    @property
    def _start(self) -> int:
        """What stands before a text that nothing precedes: the begin token, or else the end token."""
        config = self._generator.generation_config
        if config.bos_token_id is not None:
            return config.bos_token_id
        return next(iter(config.eos_token_ids), 0)

    def _encoded(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        cut = len(context.rstrip())
        continuation, context = context[cut:] + continuation, context[:cut]
        before = self._tokenizer.encode(context) if context else []
        after = self._tokenizer.encode(continuation, add_special_tokens=False)
        before = before or [self._start]
        room = max(self._generator.max_length - len(after), 1)
        return before[-room:], after

    def _scored(
        self, contexts: Sequence[list[int]], texts: Sequence[list[int]], **options: Any
    ) -> list[tuple[float, bool]]:
        """(log-probability, whether each token was the likeliest) of texts after contexts."""
        overflow = self._generator.overflow.take_from(options)
        calls = (
            self._scoring(context, text, overflow) for context, text in zip(contexts, texts, strict=True)
        )
        return list(self._generator._in_order(calls, _TOGETHER))

    def _scoring(
        self, context: list[int], text: list[int], overflow: Overflow
    ) -> tuple[list[Scoring], Callable[[], tuple[float, bool]]]:
        """The work that scores a text, and what reads it."""
        likeliest: list[int] = []
        work = self._generator._scoring(
            text, context, overflow, listener=lambda logits: likeliest.append(int(logits.argmax()))
        )
        return [work], lambda: (work.score.total, likeliest == text)


def _drawing(options: dict[str, Any]) -> dict[str, Any]:
    """The harness gives a temperature also where nothing is drawn."""
    if not options.get("do_sample"):
        options.pop("temperature", None)
        options.pop("do_sample", None)
    return options
