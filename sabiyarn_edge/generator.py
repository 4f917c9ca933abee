"""EdgeGenerator: text in, text out, from an exported model folder."""

from __future__ import annotations

import functools
import itertools
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .calls.choices import MAX_BRANCHES, ChoiceScoring
from .calls.embedding import Embedding
from .calls.holding import Holding
from .calls.outcome import result_of
from .calls.pending import Pending
from .calls.pooling import POOLINGS, Pooling
from .calls.prompts import Prompts, is_nothing, read_prompt, read_prompts
from .calls.request import Call, Settings
from .calls.result import GenerationResult
from .calls.scoring import Score, Scoring
from .calls.stream import StreamedText, TokenBuffer, TokenStream
from .chat.facade import ChatMethods
from .chat.session import chat_in
from .constraints.compiler import ConstraintCompiler
from .engine.decoder import Decoder
from .engine.engine import Engine
from .engine.generation import Generation
from .engine.prefix_cache import PrefixPin
from .engine.work import Work
from .errors import InvalidInputError, ModelFolderError, OutOfMemoryError, SessionFileError, shown
from .model_folder.config import ModelConfig
from .options.checks import choice, flag, integer
from .options.checks import path as check_path
from .options.generation_config import GenerationConfig
from .options.loading import check_loading
from .options.overflow import Overflow
from .planning.memory_plan import (
    MAX_PREFILL_CHUNK,
    MIB,
    MemoryFitWarning,
    MemoryPlan,
    check_room,
    fit_to_limit,
    loading_error,
    plan_memory,
)
from .system.caller_warning import warn_caller
from .system.memory_errors import ran_out_of_memory
from .system.process_memory import map_large_blocks, process_memory
from .system.readahead import read_ahead
from .tasks.task_file import TaskFile
from .text.tokenizer import Tokenizer
from .text_session import Session

if TYPE_CHECKING:
    from .calls.asynchronous import AsyncTokenStream

__all__ = ["EdgeGenerator", "find_model"]

BUNDLED_MODELS = Path(__file__).parent / "models"


AnyWork = TypeVar("AnyWork", bound=Work)
Result = TypeVar("Result")

_TOGETHER_TOKENS = 1024
"""Tokens of texts that are embedded side by side: enough to fill runs, few enough to hold."""

_SCORED_TOGETHER = 16
"""Texts that are scored side by side."""


class EdgeGenerator(ChatMethods):
    """Generates with one model, for any number of threads at once.

    Calls run side by side: each step of the model computes the next token of all of them. What a call gives does not
    depend on the others. A function that a call was given (logits_processor, ...) cannot call the same generator: that
    is refused. Use `from_pretrained` to make one.
    """

    def __init__(
        self,
        engine: Engine,
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
        decoder = engine.decoder
        block_size = decoder.config.gptjx.block_size
        if max_length is not None and max_length > block_size:
            raise InvalidInputError(
                f"max_length is {max_length}; it must be between 2 and the model's block_size {block_size}."
            )
        self._engine = engine
        weakref.finalize(self, engine.retire).atexit = False
        self.tokenizer = tokenizer
        self.memory_limit_mb = memory_limit_mb
        self._settings = Settings(
            vocab_size=decoder.config.gptjx.vocab_size,
            max_length=max_length or block_size,
            kv_window=decoder.window,
            tokenizer=tokenizer,
            constraints=ConstraintCompiler(tokenizer, decoder.config.gptjx.vocab_size),
            generation_config=generation_config,
            overflow=Overflow(overflow, keep_tokens),
            reuse_prefix=reuse_prefix,
            max_batch_size=max_batch_size,
            costs=decoder.costs,
            memory_limit=None if memory_limit_mb is None else int(memory_limit_mb * MIB),
            prefix_cache_bytes=engine.prefix_cache.limit_bytes,
            reserved=engine.reserved,
        )
        self._arguments: dict[str, Any] | None = None  # of from_pretrained
        if self._settings.overflow.mode == "slide":
            self._settings.sliding_context(
                self._settings.overflow
            )  # refuse bad numbers now, not at the first call

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
        low_power: bool = False,
        overflow: str = "error",
        keep_tokens: int = 0,
        reuse_prefix: bool = True,
        prefix_cache_mb: int = 0,
        memory_limit_mb: float | None = None,
        fit: bool = False,
        resident: bool = False,
    ) -> EdgeGenerator:
        """Open an exported model folder.

        Args:
            path: the folder that `sabiyarn-edge export` wrote, or "nano": the bundled demonstration model.
            num_threads: threads of the matrix products; None, and at most: the CPUs this process may use (its
                affinity, and its container's quota).
            max_length: most positions (prompt and output) of a row; None: the model's block_size. It bounds the
                KV cache: bytes_per_position * max_length for each row, and what is left of whole pages of memory.
            max_batch_size: most rows at once (prompts * beams or returns), those of other threads' calls included:
                a call waits for free rows, and is refused if it needs more than there are; None: no limit.
            kv_window: most positions whose keys and values are kept; older ones are forgotten; None: all. Each token
                sees exactly so many, the newest, of prompts too.
            num_sink_tokens: of these so many are the first positions, which are never forgotten.
            low_power: let threads sleep whenever they wait, instead of spinning inside a step: less CPU time and energy
                per token, and on an idle machine slower tokens.
            overflow: what to do when prompt and output need more positions than there are. "error": refuse before
                starting; a device should not forget, or pause to run tokens again, unasked (the torch model, where
                people experiment, slides by default). "slide": generate on without end; whenever the positions are
                used up, the oldest half of the tokens is forgotten and the newer half run again. "truncate_prompt": cut
                tokens out of the prompt, so that the output fits.
            keep_tokens: so many first tokens of a prompt are never dropped by "slide" or "truncate_prompt".
            reuse_prefix: whether a prompt that begins like the text of the last call, or one in the pool, continues
                from its keys and values instead of computing them again; and whether prompts of one call are computed
                once as far as they begin alike.
            prefix_cache_mb: MiB for the keys and values of earlier texts (system prompts, examples at the head of
                prompts), the least recently used of which are dropped; 0: only the last call's are held, and those of
                living sessions, which may take more. memory_limit_mb counts both; where a call needs the memory,
                sessions lose theirs too, and are computed again.
            memory_limit_mb: most memory that the process may take above `import onnxruntime`, MiB: now for
                max_batch_size rows (None: one) of max_length positions, and later for all calls together: prompts wait
                until others have ended, and one that cannot fit alone is refused; None: no limit. See `plan`.
            fit: where that is not enough, take a smaller prefill chunk and then a smaller kv_window, and say so in a
                MemoryFitWarning, instead of refusing.
            resident: copy the weights into memory of this process, in huge pages (2 MiB) where the system has them,
                instead of mapping their file: tokens come sooner, loading takes longer, and as much more private memory
                is taken as the weights have bytes. Nothing is read from the disk later, and no other process shares it.

        Raises:
            ModelFolderError: a file is missing or damaged, or files do not belong together.
            InvalidInputError: an argument is out of range, or memory_limit_mb is less than what the model needs;
                nothing was loaded.
            OutOfMemoryError: the machine, the control group or a limit of address space has less than loading takes;
                without memory_limit_mb it is said before.
        """
        arguments = check_loading({name: value for name, value in locals().items() if name != "cls"})
        arguments["path"] = find_model(path).absolute()
        try:
            generator = cls._load(**arguments)
        except (MemoryError, ImportError) as error:  # a library that there is no address space for
            if not ran_out_of_memory(error):
                raise
            raise _loading_error(arguments["path"], error, arguments["resident"]) from error
        generator._arguments = arguments
        return generator

    @classmethod
    def _load(
        cls,
        path: Path,
        *,
        num_threads: int | None,
        max_length: int | None,
        max_batch_size: int | None,
        kv_window: int | None,
        num_sink_tokens: int,
        low_power: bool,
        overflow: str,
        keep_tokens: int,
        reuse_prefix: bool,
        prefix_cache_mb: int,
        memory_limit_mb: float | None,
        fit: bool,
        resident: bool,
    ) -> EdgeGenerator:
        """from_pretrained() with checked arguments."""
        if fit and memory_limit_mb is None:
            raise InvalidInputError(
                "fit was given without memory_limit_mb (--memory-limit): say how many MiB the process may take."
            )
        if max_length is not None and kv_window is None:
            kv_window = _room_for(max_length, ModelConfig.load(path).gptjx.block_size)
        prefix_cache_bytes = prefix_cache_mb * MIB
        chunk = MAX_PREFILL_CHUNK
        if memory_limit_mb is None:
            check_room(path, resident=resident)
        else:
            map_large_blocks()
            plan, chosen = fit_to_limit(
                path,
                memory_limit_mb,
                fit=fit,
                max_length=max_length,
                batch=1 if max_batch_size is None else max_batch_size,
                kv_window=kv_window,
                prefix_cache_bytes=prefix_cache_bytes,
                resident=resident,
            )
            chunk = plan.prefill_chunk
            if chosen:
                kv_window = plan.kv_window
                warn_caller(
                    f"{'; '.join(chosen)}: the plan is {plan.peak_mib:.1f} MiB of {memory_limit_mb:g} allowed.",
                    MemoryFitWarning,
                )
        limit = None if memory_limit_mb is None else int(memory_limit_mb * MIB)
        if not resident:  # which reads all of it at once
            read_ahead(path / ModelConfig.load(path).weights_file, at_most=limit)
        open_decoder = functools.partial(
            _open_decoder,
            path,
            num_threads=num_threads,
            window=kv_window,
            num_sink_tokens=num_sink_tokens,
            low_power=low_power,
            max_prefill_chunk=chunk,
            resident=resident,
        )
        decoder = open_decoder()
        engine = Engine(
            decoder,
            open_decoder,
            prefix_cache_bytes=prefix_cache_bytes,
            limit_bytes=None if limit is None else limit - decoder.costs.shared - prefix_cache_bytes,
            max_rows=max_batch_size,
        )
        tokenizer_file = path / "tokenizer.json"
        num_ids = decoder.config.gptjx.vocab_size
        tokenizer = Tokenizer.from_file(tokenizer_file, num_ids) if tokenizer_file.exists() else None
        return cls(
            engine,
            tokenizer,
            GenerationConfig.load(path),
            max_length=max_length,
            max_batch_size=max_batch_size,
            overflow=overflow,
            keep_tokens=keep_tokens,
            reuse_prefix=reuse_prefix,
            memory_limit_mb=memory_limit_mb,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled, a generator is its arguments: whoever unpickles it loads the model anew."""
        if self._arguments is None:
            raise TypeError("only a generator that from_pretrained made can be pickled")
        return _load, (type(self), self._arguments)

    @staticmethod
    def plan(
        path: str | Path = "nano",
        *,
        max_length: int | None = None,
        prompt_length: int | None = None,
        batch: int = 1,
        beams: int = 1,
        kv_window: int | None = None,
        prefix_cache_mb: int = 0,
        resident: bool = False,
    ) -> MemoryPlan:
        """Say what a call of generate would take, without loading the model; one with attn_mask takes more.

        Args:
            path, kv_window, prefix_cache_mb, resident: as for `from_pretrained`.
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
            prefix_cache_bytes=integer()("prefix_cache_mb", prefix_cache_mb) * MIB,
            resident=flag("resident", resident),
        )

    @property
    def folder(self) -> Path:
        """The model folder."""
        return self._engine.decoder.folder

    @property
    def config(self) -> ModelConfig:
        """The model folder's config.json."""
        return self._engine.decoder.config

    @property
    def generation_config(self) -> GenerationConfig:
        """Options of a call that gives none: the model folder's."""
        return self._settings.generation_config

    @property
    def max_length(self) -> int:
        """Most positions of a row, prompt and output."""
        return self._settings.max_length

    @property
    def overflow(self) -> Overflow:
        """The default of calls for texts that reach the last position."""
        return self._settings.overflow

    def generate(self, inputs: Any = None, generation_config: Any = None, **options: Any) -> GenerationResult:
        """Generate a continuation of each prompt.

        Args:
            inputs: a string, a list of strings, token ids (list, tuple, integer array or tensor [length]) or a list of
                those; rows may differ in length. Or a tensor [rows, length], or an encoding of Hugging Face's
                tokenizers, which `**encoding` gives as well. Strings need the model folder's tokenizer.json.
            generation_config: options: a GenerationConfig, a dict, or Hugging Face's GenerationConfig; None: the model
                folder's.
            options: single options on top, by their names in GenerationConfig, and the callables logits_processor,
                prefix_allowed_tokens_fn and stopping_criteria; also overflow, keep_tokens and reuse_prefix as in
                `from_pretrained`, for this call; and the masks:
            attn_mask: replaces the causal mask. For B prompts of T tokens, an array has the shape (T, T), (1|B, T, T)
                or (1|B, 1, T, T). A list holds a mask (T, T) for each prompt, or None for the causal one. A function
                takes a prompt's T and returns its mask. Values are bool (True = may attend), integers 0 and 1, or
                floats, which are added to the scores of attention. Tokens may look ahead. New tokens see what the
                prompt's last token saw, and the new ones up to themselves.
                Where overflow drops tokens, the others see what is kept of what they saw, or else themselves. See
                document_mask, prefix_mask and sliding_window_mask.
            attention_mask: key padding [B, T], 1 or True = a token. Padding, on either side, is left out of the prompt.

        Returns:
            GenerationResult: one row per prompt and returned sequence.

        Raises:
            InvalidInputError: a prompt or an option is not allowed; nothing was computed.
            NumericalError: the scores of a row are NaN, or all -inf though no option forbids tokens. The generator
                stays usable.
            OutOfMemoryError: the system has no memory for keys, values or logits; the generator stays usable.
        """
        return self._generate(inputs, generation_config, options)

    def _generate(
        self,
        inputs: Any,
        generation_config: GenerationConfig | None,
        options: dict[str, Any],
        pin: PrefixPin | None = None,
    ) -> GenerationResult:
        """generate(); `pin` then says what is held of the text."""
        started = time.perf_counter()
        call = self._decide(inputs, generation_config, options)
        generations = _generations(call)
        self._engine.run(generations)
        if pin is not None:
            pin.tokens = generations[0].held
        return result_of(call, generations, self.tokenizer, started)

    def _decide(self, inputs: Any, config: GenerationConfig | None, options: dict[str, Any]) -> Call:
        try:
            return self._settings.decide(inputs, config, options)
        except MemoryError as error:
            raise OutOfMemoryError(
                f"there is no memory for the prompts and their masks ({error or 'none is left'}). Give fewer or "
                "shorter ones at once, or end other programs."
            ) from error

    def _has_compiled(self, config: GenerationConfig) -> bool:
        """Whether a call with these options compiles no constraint, which may take seconds."""
        return self._settings.constraints.is_kept(config)

    def session(self, inputs: str | Sequence[int] = "") -> Session:
        """Begin a text that grows turn by turn.

        Args:
            inputs: its beginning, a string or ids; it is computed with the session's first generate().

        Returns:
            Session: with generate(), stream(), fork(), truncate() and save().

        Raises:
            InvalidInputError: ids outside the vocabulary, or a string and no tokenizer.
        """
        session = Session(self, [], self._pin())
        if not is_nothing(inputs):
            session.append(inputs)
        return session

    def load_session(self, path: str | Path) -> Session:
        """Open what Session.save wrote: nothing that it holds is computed again.

        Raises:
            SessionFileError: the file is missing, damaged, of a newer version or of another model, or holds a chat;
                the generator is as it was.
            InvalidInputError: it holds keys and values of more tokens than kv_window, or this generator is in the
                middle of a stream.
        """
        session = self._load_session(path)
        if chat_in(session.attachment) is not None:
            raise SessionFileError(f"{path} holds a chat. Open it with load_chat.")
        return session

    def _load_session(self, path: str | Path) -> Session:
        """The text that a file holds, be it of a chat or not."""
        from .engine.session_file import load_session

        path = check_path("path", path)
        try:
            loaded = self._engine.call(lambda: load_session(path, self._engine.decoder, self._engine.rows))
        except MemoryError as error:
            raise OutOfMemoryError(
                f"there is no memory for the {path.stat().st_size / MIB:.1f} MiB of keys and values in {path}. End "
                "other programs, or raise the limit."
            ) from error
        return Session(self, loaded.tokens, self._pin(loaded.cached), loaded.attachment)

    def _pin(self, tokens: Sequence[int] = ()) -> PrefixPin:
        return self._engine.prefix_cache.pin(tokens)

    def _save_session(self, path: Path, tokens: Sequence[int], pin: PrefixPin, attachment: str) -> None:
        from .engine.session_file import save_session

        slides = self.overflow.mode == "slide"
        context = self._settings.sliding_context(self.overflow if slides else Overflow())
        seen = context.of(tokens) if slides or len(tokens) <= context.positions else []
        key_values = None
        if seen and len(seen) <= self._settings.kv_window:
            holding = Holding(seen, self._settings.holding_bytes(len(seen)))
            self._engine.run([holding])
            key_values, pin.tokens = holding.key_values, list(seen)
        save_session(path, self._engine.decoder.config, tokens, seen, key_values, attachment)

    def stream(
        self, inputs: Any, generation_config: GenerationConfig | None = None, **options: Any
    ) -> TokenStream:
        """Generate from one prompt and yield each token as soon as it is certain.

        Args, Raises: as `generate`, for one prompt and one returned sequence.

        Returns:
            An iterator of StreamedToken. Its `result` is the GenerationResult once it has ended. Tokens that are not
            read yet wait in it. Closing it early, leaving its `with` block, or dropping it ends the generation. Where
            cancel() or max_time end it while a text slides, the last token was given already: then none has a
            finish_reason, and the last letter is in `result` only.
        """
        return self._stream(inputs, generation_config, options)

    def _stream(
        self,
        inputs: Any,
        generation_config: GenerationConfig | None,
        options: dict[str, Any],
        session: Session | None = None,
    ) -> TokenStream:
        started = time.perf_counter()
        call = self._decide_stream(inputs, generation_config, options)
        buffer = TokenBuffer()
        generation = Generation(call.requests[0], buffer.put)
        generation.group, generation.on_end = id(call), buffer.end
        self._engine.submit([generation])
        text = StreamedText(call, self.tokenizer, started)
        return TokenStream(self._engine, generation, buffer, text, session)

    def _decide_stream(
        self, inputs: Any, generation_config: GenerationConfig | None, options: dict[str, Any]
    ) -> Call:
        call = self._decide(inputs, generation_config, options)
        if len(call.requests) != 1 or call.config.num_return_sequences != 1:
            raise InvalidInputError(
                f"stream() takes one prompt and returns one sequence, but there are {len(call.requests)} prompts "
                f"and num_return_sequences is {call.config.num_return_sequences}. Use generate() for several."
            )
        return call

    async def agenerate(
        self, inputs: Any, generation_config: GenerationConfig | None = None, **options: Any
    ) -> GenerationResult:
        """As `generate`, for asyncio: the event loop goes on meanwhile. Cancelling the task ends the call."""
        started = time.perf_counter()
        return await self._arun(self._decide(inputs, generation_config, options), started)

    async def _arun(self, call: Call, started: float) -> GenerationResult:
        """agenerate() of a call that was decided."""
        from .calls.asynchronous import run_works

        generations = _generations(call)
        await run_works(self._engine, generations)
        return result_of(call, generations, self.tokenizer, started)

    def astream(
        self, inputs: Any, generation_config: GenerationConfig | None = None, **options: Any
    ) -> AsyncTokenStream:
        """As `stream`, for asyncio: `async for token in generator.astream(prompt)`, inside a running event loop."""
        started = time.perf_counter()
        return self._aopen(self._decide_stream(inputs, generation_config, options), started)

    def _aopen(self, call: Call, started: float) -> AsyncTokenStream:
        """astream() of a call that was decided."""
        from .calls.asynchronous import AsyncTokenStream, LoopBuffer

        buffer = LoopBuffer()
        generation = Generation(call.requests[0], buffer.put)
        generation.group, generation.on_end = id(call), buffer.end
        self._engine.submit([generation])
        text = StreamedText(call, self.tokenizer, started)
        return AsyncTokenStream(self._engine, generation, buffer, text)

    def map(
        self,
        inputs: Iterable[Any],
        generation_config: GenerationConfig | None = None,
        *,
        max_in_flight: int = 32,
        **options: Any,
    ) -> Iterator[GenerationResult]:
        """Generate for each of many inputs, which may be endless, and yield the results in their order.

        Args:
            inputs: each as `generate` takes it.
            max_in_flight: most inputs that are taken before the result of the first of them was read.
            generation_config, options: as for `generate`, the same for all.

        Raises:
            InvalidInputError: an input or an option is not allowed; those before it were yielded. Or this is a child
                that was forked since the iteration began.
        """
        at_most = integer(at_least=1)("max_in_flight", max_in_flight)
        _check_several(inputs, "map", "inputs")
        return self._map(((given, generation_config) for given in inputs), at_most, options)

    def _map(
        self,
        inputs: Iterator[tuple[Any, GenerationConfig | None]],
        max_in_flight: int,
        options: dict[str, Any],
    ) -> Iterator[GenerationResult]:
        """map() over (input, its options)."""
        pending = (self._prepare(given, config, options) for given, config in inputs)
        return self._in_order(((call.works, call.result) for call in pending), max_in_flight)

    def _in_order(
        self, calls: Iterator[tuple[Sequence[Work], Callable[[], Result]]], max_in_flight: int
    ) -> Iterator[Result]:
        """Run calls side by side, and yield what each gives in their order.

        Args:
            calls: (works, what gives the result once they have ended). What it raises is raised when those before have
                been yielded.
            max_in_flight: most calls that are taken before the result of the first of them was read.
        """
        running: deque[tuple[Sequence[Work], Callable[[], Result]]] = deque()
        together = object()
        refused: Exception | None = None
        try:
            while True:
                for work in itertools.chain.from_iterable(works for works, _ in running):
                    work.check_process()  # before a forked child takes more inputs
                try:
                    for call in itertools.islice(calls, 0 if refused else max_in_flight - len(running)):
                        for work in call[0]:
                            work.group = together
                        self._engine.submit(call[0])
                        running.append(call)
                except Exception as error:  # those before it are yielded first
                    refused = error
                if not running:
                    if refused is not None:
                        raise refused
                    return
                works, result = running.popleft()
                self._engine.wait(works)
                yield result()
        finally:
            for works, _ in running:
                self._engine.abandon(works)

    def _prepare(self, inputs: Any, config: GenerationConfig | None, options: Mapping[str, Any]) -> Pending:
        """A checked call of generate whose works are not submitted yet."""
        started = time.perf_counter()
        call = self._decide(inputs, config, dict(options))
        return Pending(call, _generations(call), self.tokenizer, started)

    def score(
        self, texts: Iterable[Any], given: Iterable[Any] | None = None, **options: Any
    ) -> Iterator[Score]:
        """Say how likely the model finds texts, in their order as they are asked for.

        Args:
            texts: strings, or token ids each; may be an endless iterator, as of the lines of a file. A few are read
                ahead, and run side by side.
            given: for each text the text that it continues, which is not scored; None: none.
            options: overflow ("error" or "slide") and keep_tokens as in `from_pretrained`, for this call.

        Returns:
            An iterator of Score: log_probs of all tokens but the first, or of all that continue what is given, and the
            perplexity. Memory does not grow with the number of texts, and the logits of few positions are held at once.

        Raises:
            InvalidInputError: a text is empty, or is longer than the positions (with overflow="slide" it may be); or
                `texts` is a single one; or there are more or fewer of `given`.
            NumericalError: the model gave NaN.
        """
        overflow = self.overflow.take_from(options)
        if options:
            raise InvalidInputError(
                f"score has no option {next(iter(options))}; it takes overflow and keep_tokens."
            )
        _check_several(texts, "score", "texts")
        if given is not None:
            _check_several(given, "given", "texts")
        works = (self._scoring(text, source, overflow) for text, source in _pairs(texts, given))
        return self._in_order((([work], lambda work=work: work.score) for work in works), _SCORED_TOGETHER)  # type: ignore[misc]

    def _scoring(
        self,
        text: Any,
        given: Any,
        overflow: Overflow,
        *,
        num_top: int = 0,
        listener: Callable[[NDArray[np.float32]], object] | None = None,
    ) -> Scoring:
        """The work that scores a text."""
        slides = overflow.mode == "slide"
        context = self._settings.sliding_context(overflow if slides else Overflow())
        read = functools.partial(
            read_prompt, tokenizer=self.tokenizer, vocab_size=self.config.gptjx.vocab_size
        )
        before = [] if given is None else read(given)
        if given is not None and isinstance(text, str) and self.tokenizer is not None:
            text = self.tokenizer.encode(text, add_special_tokens=False)
        ids = [*before, *read(text)]
        if not slides and len(ids) > context.positions:
            raise InvalidInputError(
                f"the text has {len(ids)} tokens, but there are {context.positions} positions. Shorten it, or give "
                'overflow="slide".'
            )
        needed = self._settings.scoring_bytes(len(ids))
        return Scoring(
            ids, context, num_given=len(before), needed_bytes=needed, num_top=num_top, listener=listener
        )

    async def _ascore(self, texts: Sequence[Any], num_top: int, overflow: Overflow) -> list[Scoring]:
        """As `score`, of several texts together and for asyncio; with the likeliest tokens in each place."""
        from .calls.asynchronous import run_works

        scorings = [self._scoring(text, None, overflow, num_top=num_top) for text in texts]
        await run_works(self._engine, scorings)
        return scorings

    def embed(
        self, inputs: Any, *, pooling: Pooling = "mean", normalize: bool = False
    ) -> NDArray[np.float32]:
        """Texts as vectors: the hidden states behind the model's last layer norm.

        Args:
            inputs: a string, a list of strings, token ids or a list of those; each of at most `max_length` tokens.
            pooling: "mean" of all tokens' hidden states, or the "last" token's, which has seen all the others. "mean"
                takes up to 1.5x the prefill time, since the logits of all tokens are computed too.
            normalize: give vectors of length 1, so that a product of two is their cosine.

        Returns:
            float32 [n_embd] for one text, [texts, n_embd] for a list. Short texts run together, up to about 1000
            tokens at once.

        Raises:
            InvalidInputError: an input is empty or too long, or an option is not one of those allowed.
            NumericalError: the model gave NaN or infinity.
        """
        prompts, groups = self._decide_embeddings(inputs, pooling, normalize)
        for together in groups:
            self._engine.run(together)
        return _vectors(prompts, groups, normalize)

    async def aembed(
        self, inputs: Any, *, pooling: Pooling = "mean", normalize: bool = False
    ) -> NDArray[np.float32]:
        """As `embed`, for asyncio: the event loop goes on meanwhile. Cancelling the task ends the call."""
        from .calls.asynchronous import run_works

        prompts, groups = self._decide_embeddings(inputs, pooling, normalize)
        for together in groups:
            await run_works(self._engine, together)
        return _vectors(prompts, groups, normalize)

    def _decide_embeddings(
        self, inputs: Any, pooling: Pooling, normalize: bool
    ) -> tuple[Prompts, list[Sequence[Embedding]]]:
        """The texts, and their works in groups that run together."""
        choice(*POOLINGS)("pooling", pooling)
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
        works = [Embedding(ids, pooling, self._settings.scoring_bytes(len(ids))) for ids in prompts.ids]
        return prompts, list(_groups(works, [len(ids) for ids in prompts.ids]))

    @property
    def num_running(self) -> int:
        """Prompts of all callers that are being run."""
        return self._engine.num_live

    @property
    def num_waiting(self) -> int:
        """Prompts of all callers that wait for rows or memory."""
        return self._engine.num_waiting

    # --- tasks

    @functools.cached_property
    def tasks(self) -> TaskFile:
        """The model folder's tasks.json: the tasks that this model knows, with their languages and labels.

        Raises:
            ModelFolderError: the file is damaged, or something in it is not allowed; names the line.
        """
        return TaskFile({}, {}) if self._arguments is None else TaskFile.load(self._arguments["path"])

    def run_task(
        self,
        name: str,
        /,
        *,
        source: str | None = None,
        labels: Sequence[str] | None = None,
        options: Mapping[str, Any] | None = None,
        special_tokens: bool = False,
        **slots: Any,
    ) -> Any:
        """Run a task of `tasks`. Texts of a list run together.

        Args:
            name: of the task.
            source: the language of the text, by code or name; refused if the task does not take it. None: not checked.
            labels: for a task that scores labels and has none of its own.
            options: of GenerationConfig, on top of the task's.
            special_tokens: read special tokens in the slots' texts as such; else "<yor>" in a text is text.
            slots: what fills the task's template: each a string, or a list of strings; a language by code or name.

        Returns:
            str, Classification or a list of Entity, as the task says; a list of them if a slot is a list.

        Raises:
            InvalidInputError: the model does not have this task, or an argument is not allowed; nothing was computed.
        """
        from .tasks.runner import TaskRunner

        runner = TaskRunner(self, self.tasks)
        return runner.run(
            name, slots, source=source, labels=labels, options=options, special_tokens=special_tokens
        )

    def translate(
        self, texts: str | Sequence[str], to: str, source: str | None = None, **options: Any
    ) -> Any:
        """Translate texts.

        Documents are cut into what the model translates at once (a sentence, or a line, as its tasks.json says); lines,
        blank lines and order stay.

        Args:
            texts: a string, or a list of strings.
            to: the language to translate into, by code ("yor", "yo") or name ("Yoruba").
            source: the language of the texts; None: not checked.
            options: of GenerationConfig, on top of the task's.

        Returns:
            str, or a list of str for a list.

        Raises:
            InvalidInputError: the model does not translate, or not into this language (it lists those that it does),
                or an argument is not allowed.
        """
        return self.run_task("translate", text=texts, to=to, source=source, options=options)

    def diacritize(self, texts: str | Sequence[str], **options: Any) -> Any:
        """Put tone marks and dots on texts. Args, Returns, Raises: as `translate`."""
        return self.run_task("diacritize", text=texts, options=options)

    def clean(self, texts: str | Sequence[str], **options: Any) -> Any:
        """Correct texts: spelling, and what is left of markup. Args, Returns, Raises: as `translate`."""
        return self.run_task("clean", text=texts, options=options)

    def summarize(self, texts: str | Sequence[str], **options: Any) -> Any:
        """Summarize texts. Args, Returns, Raises: as `translate`; a text must fit into the model's positions."""
        return self.run_task("summarize", text=texts, options=options)

    def headline(self, texts: str | Sequence[str], **options: Any) -> Any:
        """Write headlines for texts. Args, Returns, Raises: as `summarize`."""
        return self.run_task("headline", text=texts, options=options)

    def instruct(self, instructions: str | Sequence[str], **options: Any) -> Any:
        """Follow instructions. Args, Returns, Raises: as `summarize`."""
        return self.run_task("instruct", instruction=instructions, options=options)

    def answer(self, question: str | Sequence[str], context: str | Sequence[str], **options: Any) -> Any:
        """Answer questions about a text.

        Args:
            question: a string, or a list of strings.
            context: the text that tells the answer, or one for each question.
            options: of GenerationConfig, on top of the task's.

        Returns, Raises: as `summarize`.
        """
        return self.run_task("answer", question=question, context=context, options=options)

    def classify(self, texts: str | Sequence[str], labels: str | Sequence[str]) -> Any:
        """Say how likely each label is for texts. The labels are scored, not generated.

        Args:
            texts: a string, or a list of strings.
            labels: a task that has labels, "sentiment" or "topic" with SabiYarn, or a list of labels.

        Returns:
            Classification, or a list of them for a list.

        Raises:
            InvalidInputError: the model does not classify, or an argument is not allowed.
            NumericalError: the model gave NaN.
        """
        if isinstance(labels, str):
            return self.run_task(self.tasks.classifier(labels, "labels").name, text=texts)
        return self.run_task("classify", text=texts, labels=labels)

    def identify_language(self, texts: str | Sequence[str]) -> Any:
        """Say how likely each language is for texts. Args, Returns, Raises: as `classify`; labels are codes."""
        return self.run_task("identify_language", text=texts)

    def tag_entities(self, texts: str | Sequence[str], **options: Any) -> Any:
        """Find the names of persons, places, organizations and the like.

        Args:
            texts: a string, or a list of strings.
            options: of GenerationConfig, on top of the task's.

        Returns:
            A list of Entity in the order of the text, with indices into it; a list of lists for a list.

        Raises: as `translate`.
        """
        return self.run_task("tag_entities", text=texts, options=options)

    def _choice_log_probs(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[Sequence[Sequence[int]]]
    ) -> list[NDArray[np.float64]]:
        """The log-probability of each choice of each prompt; all are ids."""
        groups = self._choice_groups(prompts, choices)
        for together in groups:
            self._engine.run(together)
        return [work.log_probs for works in groups for work in works]

    async def _achoice_log_probs(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[Sequence[Sequence[int]]]
    ) -> list[NDArray[np.float64]]:
        """As `_choice_log_probs`, for asyncio."""
        from .calls.asynchronous import run_works

        groups = self._choice_groups(prompts, choices)
        for together in groups:
            await run_works(self._engine, together)
        return [work.log_probs for works in groups for work in works]

    def _choice_groups(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[Sequence[Sequence[int]]]
    ) -> list[Sequence[ChoiceScoring]]:
        """The works that score the choices of each prompt, in groups that run together."""
        works = self._choice_works(prompts, choices)
        return list(_groups(works, [len(prompt) for prompt in prompts]))

    def _choice_works(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[Sequence[Sequence[int]]]
    ) -> list[ChoiceScoring]:
        """The works that score the choices of each prompt."""
        works = []
        for prompt, continuations in zip(prompts, choices, strict=True):
            longest, rows = max(map(len, continuations)), min(len(continuations), MAX_BRANCHES)
            needed = self._settings.choice_bytes(len(prompt), longest, rows)
            reuse = self._settings.reuse_prefix
            works.append(ChoiceScoring(prompt, continuations, reuse_prefix=reuse, needed_bytes=needed))
        return works

    def cancel(self) -> None:
        """End all calls that are running in other threads within a step of the model.

        Their rows end with the finish reason "cancelled" and what they had generated so far. score and embed have no
        part of a result to give: they run to their end.
        """
        self._engine.cancel()

    def memory_usage(self) -> dict[str, int]:
        """Bytes held now.

        "kv_cache", "prefix_cache" (earlier texts' and sessions' keys and values), "step_buffers" (of them
        "mask_buffer") and "mask_cache" are exact; both masks take nothing before the first call with one.
        "weights_file" is the size on disk. "process_anonymous" and "process_resident" are the whole process's, from the
        system (absent where it does not tell).
        """
        decoder = self._engine.decoder
        return {
            "kv_cache": decoder.kv_cache.nbytes,
            "kv_bytes_per_position": decoder.kv_cache.bytes_per_position,
            "prefix_cache": self._engine.prefix_cache.nbytes,
            "step_buffers": decoder.buffers.nbytes,
            "mask_buffer": decoder.buffers.mask_nbytes,
            "mask_cache": decoder.causal_masks.nbytes,
            "weights_file": self.config.weights_bytes,
            **process_memory(),
        }

    def clear_kv_cache(self) -> None:
        """Forget all texts and zero the keys and values; their memory is kept. Waits for calls that are running."""
        self._engine.forget(Decoder.clear_kv_cache)

    def free_kv_cache(self) -> None:
        """Forget all texts and give the memory of keys and values back. Waits for calls that are running."""
        self._engine.forget(Decoder.free_kv_cache)

    def close(self) -> None:
        """End running calls with an error, and refuse further ones. Leaving a `with` block does it too."""
        self._engine.close()

    def __enter__(self) -> EdgeGenerator:
        self._engine.check_open()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _open_decoder(path: Path, **options: Any) -> Decoder:
    try:
        return Decoder(path, **options)
    except MemoryError as error:  # in a forked child too
        raise _loading_error(path, error, options["resident"]) from error


def _loading_error(path: Path, error: BaseException, resident: bool) -> OutOfMemoryError:
    return error if isinstance(error, OutOfMemoryError) else loading_error(path, error, resident=resident)


def _load(kind: type[EdgeGenerator], arguments: dict[str, Any]) -> EdgeGenerator:
    return kind.from_pretrained(**arguments)


def _generations(call: Call) -> list[Generation]:
    generations = [Generation(request) for request in call.requests]
    for generation in generations:
        generation.group = id(call)
    return generations


def _pairs(texts: Iterable[Any], given: Iterable[Any] | None) -> Iterator[tuple[Any, Any]]:
    """Each text and what it continues."""
    if given is None:
        yield from ((text, None) for text in texts)
        return
    try:
        yield from zip(texts, given, strict=True)
    except InvalidInputError:  # a ValueError, of whoever reads them
        raise
    except ValueError as error:
        raise InvalidInputError(f"there is not one of given for each text ({error}). Give as many.") from None


def _vectors(prompts: Prompts, groups: Sequence[Sequence[Embedding]], normalize: bool) -> NDArray[np.float32]:
    vectors = np.array([work.vector for works in groups for work in works])
    if normalize:
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors if prompts.is_batch else vectors[0]


def _groups(works: Sequence[AnyWork], lengths: Sequence[int]) -> Iterator[Sequence[AnyWork]]:
    """Cut works into groups that run together."""
    first = tokens = 0
    for index, length in enumerate(lengths):
        if tokens and tokens + length > _TOGETHER_TOKENS:
            yield works[first:index]
            first, tokens = index, 0
        tokens += length
    yield works[first:]


_WHOLE_PAGES = 256
"""Positions: so many fill whole pages of up to 16 KiB in each head, from a head_dim of 64 on."""


def _room_for(max_length: int, block_size: int) -> int:
    """The window for rows of max_length: a whole number of pages, since only whole pages are shared by beams."""
    return min(-(-max(max_length, 1) // _WHOLE_PAGES) * _WHOLE_PAGES, block_size)


def _check_several(given: Any, function: str, name: str) -> None:
    """Raise InvalidInputError for what is no list, iterator or the like of texts."""
    if isinstance(given, str | bytes | Mapping):
        raise InvalidInputError(
            f"{function} takes several {name}, but was given one, {shown(given)}. Put it in a list."
        )
    if not isinstance(given, Iterable) or getattr(given, "ndim", 1) == 0:
        raise InvalidInputError(f"{name} is {shown(given)}, but must be a list, an iterator or the like.")


def find_model(path: str | Path) -> Path:
    """The folder of a model: `path` itself, or the bundled model of that name where no such folder exists.

    Raises:
        ModelFolderError: it is neither.
    """
    folder = check_path("path", path)
    bundled = sorted(config.parent.name for config in BUNDLED_MODELS.glob("*/config.json"))
    # Some other folder of a bundled model's name, where the command happens to run, does not hide the model.
    if folder.is_dir() and (str(path) not in bundled or (folder / "config.json").is_file()):
        return folder
    if str(path) in bundled:
        return BUNDLED_MODELS / str(path)
    raise ModelFolderError(
        f"{path} is not a folder. Give one that `sabiyarn-edge export` wrote, or a bundled model: {', '.join(bundled)}."
    )
