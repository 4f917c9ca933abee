"""EdgeGenerator: text in, text out, from an exported model folder."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._core import DecodeState
from .calls.attention_masks import CallMasks, PromptMask
from .calls.callbacks import Callbacks
from .calls.decode_options import DEFAULT_MAX_NEW_TOKENS, decode_state
from .calls.embedding import check_pooling, embed_tokens
from .calls.pooling import Pooling
from .calls.prompts import Prompts, read_prompt, read_prompts
from .calls.result import GenerationResult
from .calls.run import Run
from .calls.scoring import Score, score_tokens
from .engine.decoder import MAX_PREFILL_CHUNK, Decoder
from .engine.prefix_cache import PrefixPin
from .errors import InvalidInputError, ModelFolderError
from .model_folder.config import ModelConfig
from .options.checks import flag
from .options.generation_config import GenerationConfig
from .options.overflow import Overflow, SlidingContext, cut_prompt
from .planning.memory_plan import (
    MIB,
    MemoryFitWarning,
    MemoryPlan,
    check_call,
    check_room,
    fit_to_limit,
    plan_memory,
)
from .system.process_memory import process_memory, return_free_memory
from .text.streaming import StreamedToken
from .text.tokenizer import Tokenizer
from .text_session import Session

__all__ = ["EdgeGenerator", "TokenStream", "find_model"]

BUNDLED_MODELS = Path(__file__).parent / "models"


class EdgeGenerator:
    """Generates with one model; keeps its KV cache from call to call.

    Calls from several threads wait for one another, and for a stream that another thread has begun until it has ended
    or is closed; `cancel` and `memory_usage` never wait. For parallel work make one generator per thread. A function
    that a call was given (logits_processor, ...) cannot call the same generator: that is refused.
    Use `from_pretrained` to make one.
    """

    def __init__(
        self,
        session: Decoder,
        tokenizer: Tokenizer | None,
        generation_config: GenerationConfig,
        *,
        max_length: int | None = None,
        max_batch_size: int | None = None,
        overflow: str = "error",
        keep_tokens: int = 0,
        reuse_prefix: bool = True,
        memory_limit_mb: float | None = None,
    ) -> None:
        block_size = session.config.gptjx.block_size
        if max_length is not None and not 2 <= max_length <= block_size:
            raise InvalidInputError(
                f"max_length is {max_length}; it must be between 2 and the model's block_size {block_size}."
            )
        if max_batch_size is not None and max_batch_size < 1:
            raise InvalidInputError(f"max_batch_size is {max_batch_size}; it must be at least 1, or None.")
        self._session = session
        self.tokenizer = tokenizer
        self.generation_config = generation_config
        self.max_length = max_length or block_size
        self.max_batch_size = max_batch_size
        self.memory_limit_mb = memory_limit_mb
        self.overflow = Overflow(overflow, keep_tokens)
        self.reuse_prefix = reuse_prefix
        if self.overflow.mode == "slide":
            self._sliding_context(self.overflow)  # refuse bad numbers now, not at the first call
        self._lock = threading.Lock()
        self._owner: int | None = None
        self._running: DecodeState | None = None

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path = "nano",
        *,
        num_threads: int | None = None,
        max_length: int | None = None,
        max_batch_size: int | None = None,
        kv_window: int | None = None,
        num_sink_tokens: int = 0,
        weight_cache: bool | None = None,
        low_power: bool = False,
        overflow: str = "error",
        keep_tokens: int = 0,
        reuse_prefix: bool = True,
        prefix_cache_mb: int = 0,
        memory_limit_mb: float | None = None,
        fit: bool = False,
    ) -> EdgeGenerator:
        """Open an exported model folder.

        Args:
            path: the folder that `sabiyarn-edge export` wrote, or "nano": the bundled demonstration model.
            num_threads: threads of the matrix products; None, and at most: the CPUs this process may use (its
                affinity, and its container's quota).
            max_length: most positions (prompt and output) of a row; None: the model's block_size. It bounds the
                KV cache: bytes_per_position * max_length for each row, and what is left of whole pages of memory.
            max_batch_size: most rows at once (prompts * beams or returns); None: no limit.
            kv_window: most positions whose keys and values are kept; older ones are forgotten; None: all. Each token
                sees exactly the newest so many (of prompts too, which are run token by token from there on).
            num_sink_tokens: so many first positions are never forgotten.
            weight_cache: keep float weights, packed for this CPU, in the cache folder, from where all processes map
                them (twice the model's size on disk; made on first load). None: if they are at least 32 MiB. Weights of
                int8 and int4 are mapped from the model folder and never packed.
            low_power: let threads sleep whenever they wait, instead of spinning inside a step: less CPU time and energy
                per token, and on an idle machine slower tokens.
            overflow: what to do when prompt and output need more positions than there are. "error": refuse before
                starting. "slide": generate on without end; whenever the positions are used up, the oldest half of
                the tokens is forgotten and the newer half run again. "truncate_prompt": cut tokens out of the
                prompt, so that the output fits.
            keep_tokens: so many first tokens of a prompt are never dropped by "slide" or "truncate_prompt".
            reuse_prefix: whether a prompt that begins like the text of the last call, or one in the pool, continues
                from its keys and values instead of computing them again; and whether prompts of one call are computed
                once as far as they begin alike.
            prefix_cache_mb: MiB for the keys and values of earlier texts (system prompts, examples at the head of
                prompts), the least recently used of which are dropped; 0: only the last call's are held, and those of
                living sessions, which may take more. memory_limit_mb counts both.
            memory_limit_mb: most memory that the process may take above `import onnxruntime`, MiB: now for
                max_batch_size rows (None: one) of max_length positions, and later for each call; None: no limit. See
                `plan`.
            fit: where that is not enough, take a smaller prefill chunk and then a smaller kv_window, and say so in a
                MemoryFitWarning, instead of refusing.

        Raises:
            ModelFolderError: a file is missing or damaged, or files do not belong together.
            InvalidInputError: an argument is out of range, or memory_limit_mb is less than what the model needs;
                nothing was loaded.
            OutOfMemoryError: without memory_limit_mb: the machine or the control group has less than loading takes.
        """
        folder = find_model(path)
        if fit and memory_limit_mb is None:
            raise InvalidInputError(
                "fit was given without memory_limit_mb (--memory-limit): say how many MiB the process may take."
            )
        if max_length is not None and kv_window is None:
            kv_window = _room_for(max_length, ModelConfig.load(folder).gptjx.block_size)
        prefix_cache_bytes = _pool_bytes(prefix_cache_mb)
        chunk = MAX_PREFILL_CHUNK
        if memory_limit_mb is None:
            check_room(folder, weight_cache=weight_cache)
        else:
            plan, chosen = fit_to_limit(
                folder,
                memory_limit_mb,
                fit=fit,
                max_length=max_length,
                batch=1 if max_batch_size is None else max_batch_size,
                kv_window=kv_window,
                weight_cache=weight_cache,
                prefix_cache_bytes=prefix_cache_bytes,
            )
            if chosen:
                chunk, kv_window = plan.prefill_chunk, plan.kv_window
                warnings.warn(
                    f"{'; '.join(chosen)}: the plan is {plan.peak_mib:.1f} MiB of {memory_limit_mb:g} allowed.",
                    MemoryFitWarning,
                    stacklevel=2,
                )
        session = Decoder(
            folder,
            num_threads=num_threads,
            window=kv_window,
            num_sink_tokens=num_sink_tokens,
            weight_cache=weight_cache,
            low_power=low_power,
            max_prefill_chunk=chunk,
            prefix_cache_bytes=prefix_cache_bytes,
        )
        tokenizer_file = folder / "tokenizer.json"
        tokenizer = Tokenizer.from_file(tokenizer_file) if tokenizer_file.is_file() else None
        return cls(
            session,
            tokenizer,
            GenerationConfig.load(folder),
            max_length=max_length,
            max_batch_size=max_batch_size,
            overflow=overflow,
            keep_tokens=keep_tokens,
            reuse_prefix=reuse_prefix,
            memory_limit_mb=memory_limit_mb,
        )

    @staticmethod
    def plan(
        path: str | Path = "nano",
        *,
        max_length: int | None = None,
        prompt_length: int | None = None,
        batch: int = 1,
        beams: int = 1,
        kv_window: int | None = None,
        weight_cache: bool | None = None,
        prefix_cache_mb: int = 0,
    ) -> MemoryPlan:
        """Say what a call of generate would take, without loading the model; one with attn_mask takes more.

        Args:
            path, kv_window, weight_cache, prefix_cache_mb: as for `from_pretrained`.
            max_length: positions of a row, prompt and output; None: the model's block_size.
            prompt_length: of them the prompt's; None: all but one, which takes the most.
            batch: prompts at once.
            beams: beams or returned sequences of each prompt.

        Raises:
            ModelFolderError: a file is missing or damaged.
            InvalidInputError: an argument is out of range.
        """
        return plan_memory(
            find_model(path),
            max_length=max_length,
            prompt_length=prompt_length,
            batch=batch,
            beams=beams,
            kv_window=kv_window,
            weight_cache=weight_cache,
            prefix_cache_bytes=_pool_bytes(prefix_cache_mb),
        )

    @property
    def config(self) -> ModelConfig:
        """The model folder's config.json."""
        return self._session.config

    def generate(
        self, inputs: Any, generation_config: GenerationConfig | None = None, **options: Any
    ) -> GenerationResult:
        """Generate a continuation of each prompt.

        Args:
            inputs: a string, a list of strings, token ids (list, tuple or integer array [length]) or a list of
                those; rows may differ in length. Strings need the model folder's tokenizer.json.
            generation_config: options; None: the model folder's.
            options: single options on top, by their names in GenerationConfig, and the callables logits_processor,
                prefix_allowed_tokens_fn and stopping_criteria; also overflow, keep_tokens and reuse_prefix as in
                `from_pretrained`, for this call; and the masks:
            attn_mask: which prompt tokens see which, in place of causality: (T, T), (1|B, T, T) or (1|B, 1, T, T) for B
                prompts of T tokens, a list of B masks (T, T), None = causal, or a function from a prompt's T to its
                mask. Bool, True = may attend; integers 0 and 1; or floats, added to the scores of attention. It may let
                tokens look ahead. New tokens see what the prompt's last token saw, and the new ones up to themselves.
                Where overflow drops tokens the others see what is left of what they saw, or else themselves. Under a
                mask prompt_lookup_num_tokens makes nothing faster. See document_mask, prefix_mask and
                sliding_window_mask.
            attention_mask: key padding [B, T], 1 or True = a token. Padding, on either side, is left out of the prompt.

        Returns:
            GenerationResult: one row per prompt and returned sequence.

        Raises:
            InvalidInputError: a prompt or an option is not allowed; nothing was computed.
            NumericalError: the scores of a row are NaN or leave no token to choose; the generator stays usable.
        """
        return self._generate(inputs, generation_config, options)

    def _generate(
        self,
        inputs: Any,
        generation_config: GenerationConfig | None,
        options: dict[str, Any],
        claim: PrefixPin | None = None,
    ) -> GenerationResult:
        """generate(); `claim` then says what is held of the text."""
        with self._reserved():
            run = self._start(inputs, generation_config, options)
            run.to_end()
            if claim is not None:
                claim.tokens = self._session.text.tokens
            return run.result()

    def session(self, inputs: str | Sequence[int] = "") -> Session:
        """Begin a text that grows turn by turn.

        Args:
            inputs: its beginning, a string or ids; it is computed with the session's first generate().

        Returns:
            Session: with generate(), stream(), fork(), truncate() and save().

        Raises:
            InvalidInputError: ids outside the vocabulary, or a string and no tokenizer.
        """
        session = Session(self, [], self._claim())
        if len(inputs) > 0:
            session.append(inputs)
        return session

    def load_session(self, path: str | Path) -> Session:
        """Open what Session.save wrote: nothing that it holds is computed again.

        Raises:
            SessionFileError: the file is missing, damaged, of a newer version or of another model; the generator
                is as it was.
            InvalidInputError: it holds keys and values of more tokens than kv_window, or this generator is in the
                middle of a stream.
        """
        from .engine.session_file import load_session

        with self._reserved():
            tokens = load_session(path, self._session)
            return Session(self, tokens, self._claim(self._session.text.tokens))

    def _claim(self, tokens: Sequence[int] = ()) -> PrefixPin:
        return self._session.text.pool.claim(tokens)

    def _save_session(self, path: str | Path, tokens: Sequence[int], claim: PrefixPin) -> None:
        from .engine.session_file import save_session

        with self._reserved():
            slides = self.overflow.mode == "slide"
            context = self._sliding_context(self.overflow if slides else Overflow())
            seen = context.of(tokens) if slides or len(tokens) <= context.positions else []
            if len(seen) > self._session.window:
                seen = []
            if seen:
                self._session.hold(seen)
                claim.tokens = list(seen)
            save_session(path, self._session, tokens, seen)

    def stream(
        self, inputs: Any, generation_config: GenerationConfig | None = None, **options: Any
    ) -> TokenStream:
        """Generate from one prompt and yield each token as soon as it is certain.

        Args, Raises: as `generate`, for one prompt and one returned sequence.

        Returns:
            An iterator of StreamedToken. Its `result` is the GenerationResult once it has ended. Closing it early,
            or leaving its `with` block, ends the generation. Where cancel() or max_time end it while a text slides,
            the last token was given already: then none has a finish_reason, and the last letter is in `result` only.
        """
        return TokenStream(self._stream(inputs, generation_config, options))

    def score(self, texts: Iterable[Any], **options: Any) -> Iterator[Score]:
        """Say how likely the model finds texts, one by one as they are asked for.

        Args:
            texts: strings, or token ids each; may be an endless iterator, as of the lines of a file.
            options: overflow ("error" or "slide") and keep_tokens as in `from_pretrained`, for this call.

        Returns:
            An iterator of Score: log_probs of all tokens but the first, and the perplexity. Memory does not grow
            with the number of texts, and the logits of few positions are held at once.

        Raises:
            InvalidInputError: a text is empty, or is longer than the positions (with overflow="slide" it may be); or
                `texts` is a single one.
            NumericalError: the model gave NaN.
        """
        overflow = self.overflow.take_from(options)
        if options:
            raise InvalidInputError(
                f"score has no option {next(iter(options))}; it takes overflow and keep_tokens."
            )
        if isinstance(texts, str):
            raise InvalidInputError(
                "score takes several texts, but was given one string. Put it in a list: [text]."
            )
        return self._scores(texts, overflow)

    def _scores(self, texts: Iterable[Any], overflow: Overflow) -> Iterator[Score]:
        slides = overflow.mode == "slide"
        context = self._sliding_context(overflow if slides else Overflow())
        for text in texts:
            ids = read_prompt(text, tokenizer=self.tokenizer, vocab_size=self.config.gptjx.vocab_size)
            if not slides and len(ids) > context.positions:
                raise InvalidInputError(
                    f"the text has {len(ids)} tokens, but there are {context.positions} positions. Shorten it, or give "
                    'overflow="slide".'
                )
            with self._reserved():
                score = score_tokens(self._session, ids, context)
            yield score

    def embed(
        self, inputs: Any, *, pooling: Pooling = "mean", normalize: bool = False
    ) -> NDArray[np.float32]:
        """Texts as vectors: the hidden states behind the model's last layer norm.

        Args:
            inputs: a string, a list of strings, token ids or a list of those; each of at most `max_length` tokens.
            pooling: "mean" of all tokens' hidden states, or the "last" token's, which has seen all the others. "mean"
                takes up to half as long again as reading a prompt, since the logits of all tokens are computed too.
            normalize: give vectors of length 1, so that a product of two is their cosine.

        Returns:
            float32 [n_embd] for one text, [texts, n_embd] for a list. Texts are run one by one: memory is that of a
            prompt as long as the longest.

        Raises:
            InvalidInputError: an input is empty or too long, or an option is not one of those allowed.
            NumericalError: the model gave NaN or infinity.
        """
        check_pooling(pooling)
        flag("normalize", normalize)
        prompts = read_prompts(
            inputs, tokenizer=self.tokenizer, vocab_size=self.config.gptjx.vocab_size, max_length=None
        )
        for index, ids in enumerate(prompts.ids):
            if len(ids) > self.max_length:
                raise InvalidInputError(
                    f"text {index} has {len(ids)} tokens, but there are {self.max_length} positions. Embed pieces of "
                    "it."
                )
        with self._reserved():
            vectors = np.array([embed_tokens(self._session, ids, pooling) for ids in prompts.ids])
        if normalize:
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors if prompts.is_batch else vectors[0]

    def cancel(self) -> None:
        """End the call that is running in another thread, if there is one, within a step of the model.

        Its rows end with the finish reason "cancelled" and what they had generated so far.
        """
        running = self._running
        if running is not None:
            running.cancel()

    def memory_usage(self) -> dict[str, int]:
        """Bytes held now.

        "kv_cache", "prefix_cache" (earlier texts' and sessions' keys and values), "step_buffers", "masked_buffers" and
        "mask_cache" (causal masks) are exact; "masked_graph" is what
        the process grew by when the first attn_mask loaded decoder_masked.onnx, 0 before; "weights_file" is the size on
        disk; "process_anonymous" and "process_resident" are the whole process's, from the system (absent where it does
        not tell).
        """
        return {
            "kv_cache": self._session.kv_cache.nbytes,
            "kv_bytes_per_position": self._session.kv_cache.bytes_per_position,
            "prefix_cache": self._session.text.pool.nbytes,
            "step_buffers": self._session.buffers.nbytes,
            **self._session.masked_memory(),
            "weights_file": self.config.weights_bytes,
            **process_memory(),
        }

    def clear_kv_cache(self) -> None:
        """Zero the keys and values and empty the pool; the KV cache's memory is kept for the next call."""
        with self._reserved():
            self._session.clear_kv_cache()

    def free_kv_cache(self) -> None:
        """Give the memory of keys and values back, the pool's too; the next call takes it again."""
        with self._reserved():
            self._session.free_kv_cache()

    @contextmanager
    def _reserved(self) -> Iterator[None]:
        """Hold the session for one call; other threads wait, this thread may not (it would wait for itself)."""
        me = threading.get_ident()
        if self._owner == me:
            raise InvalidInputError(
                "this generator is in the middle of a stream, or of the call that called this function. Read the "
                "stream to its end or close it first, or make a second generator."
            )
        with self._lock:
            try:
                self._owner = me
                yield
            finally:  # first what must not be left out: Ctrl-C may come while memory is given back
                self._owner = None
                self._running = None
                return_free_memory()

    def _start(self, inputs: Any, config: GenerationConfig | None, options: dict[str, Any]) -> Run:
        started = time.perf_counter()
        callbacks = Callbacks.take_from(options)
        overflow = self.overflow.take_from(options)
        reuse_prefix = flag("reuse_prefix", options.pop("reuse_prefix", self.reuse_prefix))
        slides, truncates = overflow.mode == "slide", overflow.mode == "truncate_prompt"
        given_masks = CallMasks.take_from(options)
        config = (config or self.generation_config).updated(**options)
        prompts = read_prompts(
            given_masks.without_padding(inputs),
            tokenizer=self.tokenizer,
            vocab_size=self.config.gptjx.vocab_size,
            max_length=self.max_length if overflow.mode == "error" else None,
        )
        masks = given_masks.of_prompts([len(ids) for ids in prompts.ids])
        if truncates:
            prompts, masks = self._cut(prompts, masks, config, overflow.keep_tokens)
        context = self._sliding_context(overflow if slides else Overflow())
        seen_at_once = max(context.length(len(ids)) for ids in prompts.ids)
        if masks is not None and seen_at_once > self._session.window:
            raise InvalidInputError(
                f"attn_mask speaks of all {seen_at_once} tokens of a prompt, but kv_window is {self._session.window}. "
                "Shorten the prompt, or load the model with a larger kv_window."
            )
        rows_each = config.num_beams if config.num_beams > 1 else config.num_return_sequences
        if self.max_batch_size is not None and len(prompts.ids) * rows_each > self.max_batch_size:
            raise InvalidInputError(
                f"{len(prompts.ids)} prompts with {rows_each} rows each are {len(prompts.ids) * rows_each} rows, but "
                f"max_batch_size is {self.max_batch_size}. Give fewer prompts at once, or load with a larger "
                "max_batch_size."
            )
        if self.memory_limit_mb is not None:
            self._check_memory(self.memory_limit_mb, prompts, rows_each, config, masks)
        state = self._running = decode_state(
            config,
            prompts=prompts.ids,
            vocab_size=self.config.gptjx.vocab_size,
            max_positions=None if slides else self.max_length,
            tokenizer=self.tokenizer,
        )
        return Run(
            self._session,
            state,
            config,
            prompts,
            callbacks,
            self.tokenizer,
            context=context,
            slides=slides,
            reuse_prefix=reuse_prefix,
            started=started,
            masks=masks,
        )

    def _check_memory(
        self,
        limit: float,
        prompts: Prompts,
        rows_each: int,
        config: GenerationConfig,
        masks: Sequence[PromptMask] | None,
    ) -> None:
        longest = min(max(map(len, prompts.ids)), self.max_length - 1)
        new_tokens = config.max_new_tokens
        if new_tokens is None:
            new_tokens = config.max_length - longest if config.max_length else DEFAULT_MAX_NEW_TOKENS
        pool = self._session.text.pool
        check_call(
            self._session.folder,
            limit,
            masks=masks,
            masked_graph_loaded=self._session.masked_graph_loaded,
            max_length=min(longest + max(new_tokens, 1), self.max_length),
            prompt_length=longest,
            batch=len(prompts.ids),
            beams=rows_each,
            kv_window=self._session.window,
            weight_cache=self._session.weight_cache,
            max_prefill_chunk=self._session.max_prefill_chunk,
            prefix_cache_bytes=max(pool.limit_bytes, pool.nbytes),  # sessions may hold more than the limit
        )

    def _sliding_context(self, overflow: Overflow) -> SlidingContext:
        return SlidingContext(self.max_length, self._session.window, overflow.keep_tokens)

    def _cut(
        self, prompts: Prompts, masks: list[PromptMask] | None, config: GenerationConfig, keep_tokens: int
    ) -> tuple[Prompts, list[PromptMask] | None]:
        """The prompts, and their masks, with so much cut out that the output fits."""
        positions = min(self.max_length, config.max_length or self.max_length)
        new_tokens = config.max_new_tokens
        if new_tokens is None:
            new_tokens = max(min(DEFAULT_MAX_NEW_TOKENS, positions // 2), config.min_new_tokens or 0)
        else:
            positions = self.max_length
        kept = [
            cut_prompt(
                list(range(len(prompt))),
                new_tokens=new_tokens,
                positions=positions,
                window=self._session.window,
                keep_tokens=keep_tokens,
            )
            for prompt in prompts.ids
        ]
        ids = [[prompt[at] for at in places] for prompt, places in zip(prompts.ids, kept, strict=True)]
        truncated = [len(old) - len(new) for old, new in zip(prompts.ids, ids, strict=True)]
        if masks is not None:
            masks = [
                mask.of_kept(places) if cut else mask
                for mask, places, cut in zip(masks, kept, truncated, strict=True)
            ]
        return Prompts(ids, truncated, prompts.is_batch), masks

    def _stream(
        self,
        inputs: Any,
        config: GenerationConfig | None,
        options: dict[str, Any],
        claim: PrefixPin | None = None,
    ) -> Generator[StreamedToken | GenerationResult]:
        with self._reserved():
            run = self._start(inputs, config, options)
            if len(run.prompts.ids) != 1 or run.config.num_return_sequences != 1:
                raise InvalidInputError(
                    f"stream() takes one prompt and returns one sequence, but there are {len(run.prompts.ids)} prompts "
                    f"and num_return_sequences is {run.config.num_return_sequences}. Use generate() for several."
                )
            try:
                with closing(run.stream()) as tokens:
                    for token in tokens:
                        yield token
                        self._owner = threading.get_ident()  # who reads on need not be who began
            finally:
                if claim is not None:
                    claim.tokens = self._session.text.tokens
            yield run.result()


_WHOLE_PAGES = 256
"""Positions: so many fill whole pages of up to 16 KiB in each head, from a head_dim of 64 on."""


def _room_for(max_length: int, block_size: int) -> int:
    """The window for rows of max_length: a whole number of pages, since only whole pages are shared by beams."""
    return min(-(-max(max_length, 1) // _WHOLE_PAGES) * _WHOLE_PAGES, block_size)


def _pool_bytes(prefix_cache_mb: int) -> int:
    if isinstance(prefix_cache_mb, bool) or not isinstance(prefix_cache_mb, int) or prefix_cache_mb < 0:
        raise InvalidInputError(
            f"prefix_cache_mb is {prefix_cache_mb!r}; it must be an integer of at least 0, in MiB."
        )
    return prefix_cache_mb * MIB


def find_model(path: str | Path) -> Path:
    """The folder of a model: `path` itself, or the bundled model of that name where no such folder exists.

    Raises:
        ModelFolderError: it is neither.
    """
    folder = Path(path)
    bundled = sorted(config.parent.name for config in BUNDLED_MODELS.glob("*/config.json"))
    # Some other folder of a bundled model's name, where the command happens to run, does not hide the model.
    if folder.is_dir() and (str(path) not in bundled or (folder / "config.json").is_file()):
        return folder
    if str(path) in bundled:
        return BUNDLED_MODELS / str(path)
    raise ModelFolderError(
        f"{path} is not a folder. Give one that `sabiyarn-edge export` wrote, or a bundled model: {', '.join(bundled)}."
    )


class TokenStream:
    """Iterates over the tokens of one generation; `result` is there once it has ended.

    The generator works for this stream until it is read to its end or closed.
    """

    def __init__(self, events: Generator[StreamedToken | GenerationResult]) -> None:
        self._events = events
        self.result: GenerationResult | None = None
        """The GenerationResult after the last token; None before, and if the stream was closed early."""

    def __iter__(self) -> TokenStream:
        return self

    def __next__(self) -> StreamedToken:
        with self._alone():
            event = next(self._events)
        if isinstance(event, GenerationResult):
            self.result = event
            event = next(self._events)  # ends the iteration and frees the generator
        assert isinstance(event, StreamedToken)
        return event

    def close(self) -> None:
        """End the generation now and free the generator for other calls."""
        with self._alone():
            self._events.close()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Say clearly that another thread is at it; Python only says that a generator is executing."""
        try:
            yield
        except ValueError as error:
            if not getattr(self._events, "gi_running", False):
                raise
            raise InvalidInputError(
                "another thread is reading this stream. Read it in one thread; EdgeGenerator.cancel() ends it from "
                "any other."
            ) from error

    def __enter__(self) -> TokenStream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()
