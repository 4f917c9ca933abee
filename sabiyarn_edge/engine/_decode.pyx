# distutils: language = c++
# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The per-token loop: feeds the decoder graph from the C++ core and the core from the graph's logits.

Inputs, outputs, keys and values lie in memory that the core owns and onnxruntime is given by address, so a decode
step is one `run_with_iobinding` call and makes no NumPy array. The GIL is released for all of the core's work
(onnxruntime releases it itself).
"""

from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp.vector cimport vector

from time import perf_counter

import numpy as np

from sabiyarn_edge.errors import WHY_NAN, NumericalError

from sabiyarn_edge.engine._decode cimport DecodeState, Guesser, KvCache, StepBuffers, TokenCost, TokenIds

DEF SEGMENT_FIELDS = 5
DEF KEY_TILE = 16  # positions whose keys are woven into one tile


include "_choice.pxi"


cdef class GraphRunner:
    """Runs decoder.onnx on one KV cache and one set of step buffers.

    Args:
        session: the graph's `onnxruntime.InferenceSession`.
        kv_cache: `_core.KvCache` whose dtype is that of the graph's past_key_values.
        buffers: `_core.StepBuffers` of the model's vocabulary.
        num_layers, num_heads, head_dim: the model's shape.
        kv_dtype: NumPy dtype of the cache.
    """

    cdef public int64_t common_guesses
    """Most guesses in one run of the texts that share this room: their logits take memory."""
    cdef TokenCost cost
    cdef KvCache* kv
    cdef StepBuffers* buffers
    cdef int64_t num_layers, num_heads, head_dim
    cdef public object graph
    cdef object owners, binding, kv_dtype
    cdef uint64_t bound_cache
    cdef (int64_t, int64_t, int64_t, int64_t, uint64_t) bound_inputs
    cdef bint hidden_is_bound

    def __init__(self, session, kv_cache, buffers, *, num_layers, num_heads, head_dim, kv_dtype):
        self.kv = <KvCache*>PyCapsule_GetPointer(kv_cache._capsule(), "sabiyarn_edge.KvCache")
        self.buffers = <StepBuffers*>PyCapsule_GetPointer(buffers._capsule(), "sabiyarn_edge.StepBuffers")
        self.owners = (kv_cache, buffers)  # the raw pointers live as long as these
        self.graph = session
        self.num_layers, self.num_heads, self.head_dim = num_layers, num_heads, head_dim
        self.kv_dtype = np.dtype(kv_dtype)
        self.binding = session.io_binding()
        self.release()

    @property
    def logits_address(self) -> int:
        """Where the logits of the last run lie, float32 [logits, vocab_size]; the next run overwrites them."""
        return <size_t>self.buffers.logits()

    def logits(self, int64_t first, int64_t count):
        """The last run's logits first, first + 1, ... as a view [count, vocab_size], float32."""
        return np.asarray(<float[:count, :self.buffers.vocab_size()]>(
            self.buffers.logits() + first * self.buffers.vocab_size()))

    def run(self, list items, hidden=None, options=None, list texts not None=[]):
        """Append tokens to rows of the KV cache, all in one run of the graph.

        Args:
            items: tuples (row, tokens, num_logits, mask), each row at most once. `tokens`: a non-empty list of ids, which
                stand behind what the row holds. `num_logits`: the logits of its last so many tokens are wanted. `mask`:
                called with an array float32 [tokens, total] to write what the tokens may see of the row's positions,
                additive; None: causal.
            hidden: float32 [logits, n_embd], gets the hidden states from which the logits are made; or None.
            options: `onnxruntime.RunOptions`, or None.
            texts: SteadyText objects, as `prepare` was given them: each of their rows runs its next token. Their logits
                come first.
        """
        cdef int64_t at = num_tokens_of(texts), mask_at = self.num_masked_of(texts), segment = num_rows_of(texts)
        cdef int64_t num_tokens = at, num_logits = at, num_masked = mask_at
        cdef int64_t row, count, total, wanted, i, logit = at
        cdef list tokens
        for row, tokens, wanted, mask in items:
            num_tokens += len(tokens)
            num_logits += wanted
            if mask is not None:
                num_masked += len(tokens) * (self.kv.next_position(row) + <int64_t>len(tokens))
        self.buffers.reserve(num_tokens, segment + <int64_t>len(items), num_logits, num_masked)
        self.append_next(texts)
        for row, tokens, wanted, mask in items:
            count = len(tokens)
            total = self.append(row, count, at, segment, -1 if mask is None else mask_at)
            for i in range(count):
                self.buffers.input_ids()[at + i] = tokens[i]
            for i in range(wanted):
                self.buffers.logits_index()[logit + i] = at + count - wanted + i
            if mask is not None:
                mask(np.asarray(<float[:count, :total]>(self.buffers.mask() + mask_at)))
                mask_at += count * total
            at += count
            logit += wanted
            segment += 1
        self.bind(num_tokens, segment, num_logits, num_masked)
        if hidden is not None:
            self.binding.bind_output("hidden_states", "cpu", 0, np.float32, hidden.shape, hidden.ctypes.data)
            self.hidden_is_bound = True
        else:
            self.unbind_hidden(num_logits)
        self.graph.run_with_iobinding(self.binding, options)
        self.note_next(texts)

    def decode(self, list texts, scheduler, int64_t num_steps) -> list:
        """Run the next token of every row of some texts and choose those after them, step by step.

        Args:
            texts: SteadyText objects, at least one.
            scheduler: its attribute `called` ends the steps.
            num_steps: most steps, at least 1.

        Returns:
            The texts that need something else now, as `choose` does.
        """
        cdef int64_t rows = num_rows_of(texts), tokens, masked
        cdef double started
        cdef list found
        while True:
            tokens, masked = self.prepare(texts, 0), self.num_masked_of(texts)
            self.buffers.reserve(tokens, rows, tokens, masked)
            self.append_next(texts)
            started = perf_counter()  # another number of tokens than before is bound anew, which counts as well
            self.bind(tokens, rows, tokens, masked)
            self.unbind_hidden(tokens)
            self.graph.run_with_iobinding(self.binding, None)
            self.cost.note(rows, tokens - rows, perf_counter() - started)
            self.note_next(texts)
            num_steps -= 1
            found = self.choose(texts)
            if found or num_steps <= 0 or scheduler.called:
                return found

    def prepare(self, list texts, int64_t others) -> int:
        """Look up how many guesses texts run behind their next tokens.

        Args:
            others: rows that run beside them.

        Returns:
            How many tokens they run, each of which gets logits.
        """
        cdef float price = self.cost.price(num_rows_of(texts) + others)
        cdef int64_t count = 0, common = self.common_guesses, room
        cdef SteadyText text
        for text in texts:
            if text.guesser != NULL:
                room = min(self.kv.max_append(text.places[0]),
                           text.positions - self.kv.next_position(text.places[0]), text.num_steps) - 1
                if text.shares_room:
                    room = min(room, common)
                text.guessed = text.guesser.guess(text.loop.decode.history_of(0), price, max(room, 0))
                if text.shares_room:
                    common -= text.guessed
            count += text.num_tokens()
        return count

    def choose(self, list texts) -> list:
        """Choose the next tokens of texts after a run in which their logits came first.

        Returns:
            Those that need something else than the next token of each row now: which have ended, failed, or were
            abandoned, whose rows move, or whose number of steps is up.
        """
        cdef int64_t vocab_size = self.buffers.vocab_size(), count = len(texts), at = 0, end
        cdef float* logits = self.buffers.logits()
        cdef vector[DecodeState*] states
        cdef vector[float*] places
        cdef SteadyText text
        cdef list found = []
        for text in texts:
            states.push_back(text.loop.decode if text.is_plain() else <DecodeState*>NULL)
            places.push_back(logits)
            logits += text.num_tokens() * vocab_size
        while at < count:
            text = texts[at]
            try:
                if not text.is_plain():
                    self.choose_one(text, places[at])
                    at += 1
                    continue
                with nogil:  # once for all: another thread may take the interpreter for a while at each release
                    while at < count and states[at] != NULL:
                        states[at].advance(places[at])
                        at += 1
            except Exception as error:
                text = texts[at]
                text.error = error
                if isinstance(error, ValueError) and text.is_plain():
                    text.error = text.loop.explained(error)
                at += 1
        for text in texts:
            if text.is_plain() and text.error is None:
                try:
                    text.note_choice()
                except Exception as error:
                    text.error = error
            if (text.num_steps <= 0 or text.error is not None or text.loop.decode.finished()
                    or not text.loop.decode.keeps_rows() or text.work.abandoned):
                found.append(text)
        return found

    cdef int choose_one(self, SteadyText text, float* logits) except -1:
        """Choose a text's next tokens; behind each guess that was right, the token after it too."""
        cdef int64_t right = 0, total
        while True:
            text.loop.choose(logits + right * self.buffers.vocab_size())
            if not text.note_choice() or right == text.guessed:
                break
            right += 1
        if right < text.guessed:
            total = self.kv.next_position(text.places[0]) - (text.guessed - right)
            self.kv.truncate(text.places[0], total)
            text.rows[0].cut(total)
        return 0

    cdef int append_next(self, list texts) except -1:
        """Say that the next tokens of the texts' rows, and their guesses, are the run's first."""
        cdef int64_t at = 0, mask_at = 0, segment = 0, count, total, i, j
        cdef SteadyText text
        for text in texts:
            count = 1 + text.guessed
            for i in range(<int64_t>text.places.size()):
                total = self.append(text.places[i], count, at, segment, -1 if text.masks is None else mask_at)
                self.buffers.input_ids()[at] = text.loop.decode.next_tokens()[i]
                for j in range(text.guessed):
                    self.buffers.input_ids()[at + 1 + j] = text.guesser.guesses()[j]
                for j in range(count):
                    self.buffers.logits_index()[at + j] = at + j
                if text.masks is not None:
                    text.masks[i](np.asarray(<float[:count, :total]>(self.buffers.mask() + mask_at)))
                    mask_at += count * total
                at += count
                segment += 1
        return 0

    cdef int note_next(self, list texts) except -1:
        """Note that the rows hold these tokens now."""
        cdef int64_t at = 0, i
        cdef SteadyText text
        cdef list held
        for text in texts:
            for held in text.held:
                for i in range(1 + text.guessed):
                    held.append(self.buffers.input_ids()[at])
                    at += 1
        return 0

    cdef int64_t num_masked_of(self, list texts) except -1:
        """Values of the masks of the texts' next tokens."""
        cdef int64_t count = 0, row
        cdef SteadyText text
        for text in texts:
            if text.masks is not None:
                for row in text.places:
                    count += (1 + text.guessed) * (self.kv.next_position(row) + 1 + text.guessed)
        return count

    cdef int64_t append(self, int64_t row, int64_t count, int64_t at, int64_t segment, int64_t mask_at) except -1:
        """Say that the run's tokens at, at + 1, ... go behind what a row holds; returns its length with them.

        mask_at: where their mask begins, -1: they have none.
        """
        cdef int64_t total = self.kv.begin_append(row, count), i
        cdef int64_t* fields = self.buffers.segments() + SEGMENT_FIELDS * segment
        for i in range(count):
            self.buffers.position_ids()[at + i] = total - count + i
        if mask_at < 0 and segment > 0:  # attention reads once what the row and the one before it share
            mask_at = ~self.kv.shared_slots((fields - SEGMENT_FIELDS)[0], row)
        fields[0], fields[1], fields[2], fields[3], fields[4] = row, count, total, self.kv.oldest(row), mask_at
        return total

    cdef int bind(self, int64_t num_tokens, int64_t num_segments, int64_t num_logits, int64_t num_masked) except -1:
        """Give onnxruntime the addresses and shapes of a run, where they are not those of the run before."""
        int64, float32 = np.int64, np.float32
        bind = self.binding.bind_input
        cdef int64_t layer
        if self.kv.layout_version() != self.bound_cache:
            key_shape = (self.kv.num_rows(), self.num_heads, self.kv.capacity() // KEY_TILE, self.head_dim, KEY_TILE)
            value_shape = (self.kv.num_rows(), self.num_heads, self.kv.capacity(), self.head_dim)
            for layer in range(self.num_layers):
                bind(f"past_key_values.{layer}.key", "cpu", 0, self.kv_dtype, key_shape,
                     <size_t>self.kv.keys(layer))
                bind(f"past_key_values.{layer}.value", "cpu", 0, self.kv_dtype, value_shape,
                     <size_t>self.kv.values(layer))
            self.bound_cache = self.kv.layout_version()
        if self.bound_inputs == (num_tokens, num_segments, num_logits, num_masked, self.buffers.version()):
            return 0
        self.bound_inputs = (-1, -1, -1, -1, 0)
        self.buffers.window()[0], self.buffers.window()[1] = self.kv.window(), self.kv.num_sink_tokens()
        bind("input_ids", "cpu", 0, int64, (num_tokens,), <size_t>self.buffers.input_ids())
        bind("position_ids", "cpu", 0, int64, (num_tokens,), <size_t>self.buffers.position_ids())
        bind("segments", "cpu", 0, int64, (num_segments, SEGMENT_FIELDS), <size_t>self.buffers.segments())
        bind("window", "cpu", 0, int64, (2,), <size_t>self.buffers.window())
        # onnxruntime takes no null address, even for an empty mask.
        bind("attention_mask", "cpu", 0, float32, (num_masked,),
             <size_t>(self.buffers.mask() if num_masked else <float*>self.buffers.window()))
        bind("logits_index", "cpu", 0, int64, (num_logits,), <size_t>self.buffers.logits_index())
        self.bind_logits(num_logits)
        self.bound_inputs = (num_tokens, num_segments, num_logits, num_masked, self.buffers.version())
        return 0

    cdef int bind_logits(self, int64_t num_logits) except -1:
        cdef float* logits = self.buffers.logits()
        self.binding.bind_output("logits", "cpu", 0, np.float32, (num_logits, self.buffers.vocab_size()),
                                 <size_t>(logits if logits != NULL else <float*>self.buffers.window()))
        return 0

    cdef int unbind_hidden(self, int64_t num_logits) except -1:
        if self.hidden_is_bound:
            self.binding.clear_binding_outputs()
            self.bind_logits(num_logits)
            self.hidden_is_bound = False
        return 0

    def release(self):
        """Forget all addresses of the KV cache and the buffers."""
        self.binding.clear_binding_inputs()
        self.binding.clear_binding_outputs()
        self.bound_cache = <uint64_t>-1
        self.bound_inputs = (-1, -1, -1, -1, 0)
        self.hidden_is_bound = False


def common_prefix(a, b) -> int:
    """How many leading items of two sequences are equal."""
    cdef list x = a if type(a) is list else list(a)
    cdef list y = b if type(b) is list else list(b)
    cdef Py_ssize_t shorter = min(len(x), len(y)), i = 0
    while i < shorter and x[i] == y[i]:
        i += 1
    return i
