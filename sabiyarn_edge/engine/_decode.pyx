# distutils: language = c++
# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The per-token loop: feeds the decoder graph from the C++ core and the core from the graph's logits.

Inputs, outputs, keys and values lie in memory that the core owns and onnxruntime is given by address, so a decode
step is one `run_with_iobinding` call and makes no NumPy array. The GIL is released for all of the core's work
(onnxruntime releases it itself). Ctrl-C is noticed after every run of the graph.
"""

from cpython.exc cimport PyErr_CheckSignals
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp.vector cimport vector

import numpy as np

from sabiyarn_edge.errors import NumericalError

from sabiyarn_edge.engine._decode cimport DecodeState, KvCache, StepBuffers, look_up_next


cdef class GraphRunner:
    """Runs decoder.onnx on one KV cache and one set of step buffers.

    Args:
        session: the graph's `onnxruntime.InferenceSession`.
        kv_cache: `_core.KvCache` whose dtype is that of the graph's past_key_values.
        buffers: `_core.StepBuffers` of the model's vocabulary.
        num_layers, num_heads, head_dim: the model's shape.
        kv_dtype: NumPy dtype of the cache.
        shrinking_options: `onnxruntime.RunOptions` for runs that give their scratch memory back, or None.
        after_shrinking: called after these runs, or None.
    """

    cdef KvCache* kv
    cdef StepBuffers* buffers
    cdef int64_t num_layers, num_heads, head_dim
    cdef object owners, run, new_binding, kv_dtype, shrinking_options, after_shrinking
    cdef object prefill_binding, decode_binding
    cdef tuple prefill_layout, decode_layout
    cdef list past_names

    def __init__(self, session, kv_cache, buffers, *, num_layers, num_heads, head_dim, kv_dtype,
                 shrinking_options=None, after_shrinking=None):
        self.kv = <KvCache*>PyCapsule_GetPointer(kv_cache._capsule(), "sabiyarn_edge.KvCache")
        self.buffers = <StepBuffers*>PyCapsule_GetPointer(buffers._capsule(), "sabiyarn_edge.StepBuffers")
        self.owners = (session, kv_cache, buffers)  # the raw pointers live as long as these
        self.run = session.run_with_iobinding
        self.num_layers, self.num_heads, self.head_dim = num_layers, num_heads, head_dim
        self.kv_dtype = np.dtype(kv_dtype)
        self.shrinking_options = shrinking_options
        self.after_shrinking = after_shrinking
        self.new_binding = session.io_binding
        self.prefill_binding = self.new_binding()
        self.decode_binding = self.new_binding()
        self.prefill_layout = self.decode_layout = None
        self.past_names = [f"past_key_values.{i}.{side}" for i in range(num_layers) for side in ("key", "value")]

    @property
    def logits_address(self) -> int:
        """Where the logits [rows, vocab_size] float32 of the last step lie."""
        return <size_t>self.buffers.logits()

    def logits(self, int64_t num_rows):
        """The logits of the last step as a view [num_rows, vocab_size], float32; the next step overwrites it."""
        return np.asarray(<float[:num_rows, :self.buffers.vocab_size()]>self.buffers.logits())

    cdef int bind(self, object binding, int64_t first_row, int64_t num_rows, int64_t num_tokens,
                  int64_t num_logits, int64_t logits_row) except -1:
        """Give onnxruntime the addresses and shapes of one step over rows [first_row, first_row + num_rows)."""
        cdef size_t offset = self.kv.row_bytes() * <size_t>first_row
        cdef int64_t layer
        cdef size_t address
        int64, int32 = np.int64, np.int32
        step_shape = (num_rows, num_tokens)
        binding.bind_input("input_ids", "cpu", 0, int64, step_shape, <size_t>self.buffers.input_ids())
        binding.bind_input("position_ids", "cpu", 0, int64, step_shape, <size_t>self.buffers.position_ids())
        binding.bind_input("seqlens_k", "cpu", 0, int32, (num_rows,), <size_t>self.buffers.seqlens_k())
        binding.bind_input("logits_index", "cpu", 0, int64, (num_logits,), <size_t>self.buffers.logits_index())
        binding.bind_output("logits", "cpu", 0, np.float32, (num_rows, num_logits, self.buffers.vocab_size()),
                            <size_t>(self.buffers.logits() + logits_row * self.buffers.vocab_size()))
        kv_shape = (num_rows, self.num_heads, self.kv.capacity(), self.head_dim)
        for layer in range(self.num_layers):
            address = <size_t>self.kv.keys(layer) + offset
            binding.bind_input(self.past_names[2 * layer], "cpu", 0, self.kv_dtype, kv_shape, address)
            address = <size_t>self.kv.values(layer) + offset
            binding.bind_input(self.past_names[2 * layer + 1], "cpu", 0, self.kv_dtype, kv_shape, address)
        return 0

    def prefill(self, int64_t row, const int64_t[::1] tokens, int64_t chunk, int64_t logits_row,
                int64_t num_logits_rows, state=None):
        """Run `tokens` through the graph behind what the KV cache's `row` holds, `chunk` tokens at a time.

        The graph takes several new tokens on top of a past only for one row at a time. On a full ring it takes one at a
        time: several would evict what the first of them still has to see, and the graph knows no other limit on what a
        token sees than the slots before its own. The logits of the last token go to row `logits_row` of the
        `num_logits_rows` rows of logits, or nowhere if `logits_row` is -1; the others' are never computed. Between
        chunks `state` (_core.DecodeState) is asked whether the run was cancelled or its time is over.

        Returns:
            Whether all tokens were run.
        """
        cdef int64_t done = 0, count, num_logits
        cdef int64_t num_tokens = tokens.shape[0]
        cdef bint is_last
        with nogil:
            self.buffers.reserve(1, min(chunk, num_tokens), 1)
            self.buffers.reserve(num_logits_rows, 1, 1)
        while done < num_tokens:
            count = min(min(chunk, num_tokens - done), max(self.kv.free_positions(row), 1))
            is_last = done + count == num_tokens
            num_logits = 1 if logits_row >= 0 and is_last else 0
            # Giving scratch back after every chunk would cost a tenth of the time. But the first one's is of no use to
            # the second, which needs blocks of twice the size.
            self.run_chunk(row, &tokens[done], count, num_logits, max(logits_row, 0),
                           num_tokens > 1 and (is_last or done == 0))
            done += count
            if state is not None and state.interruption():
                return False
        return True

    def forward(self, int64_t row, const int64_t[::1] tokens):
        """Run `tokens` through the graph behind what the KV cache's `row` holds, in one piece, for all their logits.

        Afterwards `logits(len(tokens))` are those of each token.
        """
        cdef int64_t num_tokens = tokens.shape[0]
        with nogil:
            self.buffers.reserve(1, num_tokens, num_tokens)
        self.run_chunk(row, &tokens[0], num_tokens, num_tokens, 0, num_tokens > 1)

    cdef int run_chunk(self, int64_t row, const int64_t* tokens, int64_t count, int64_t num_logits,
                       int64_t logits_row, bint gives_back) except -1:
        """One run of the graph for one row; the logits of the last `num_logits` tokens go to `logits_row` onwards.

        `gives_back`: the system gets the scratch memory back afterwards.
        """
        cdef int64_t i, length, position
        with nogil:
            position = self.kv.next_position(row)
            length = self.kv.begin_append(row, count)
            for i in range(count):
                self.buffers.input_ids()[i] = tokens[i]
                self.buffers.position_ids()[i] = position + i
            for i in range(num_logits):
                self.buffers.logits_index()[i] = count - num_logits + i
            self.buffers.seqlens_k()[0] = <int32_t>(length - 1)
        layout = (row, count, num_logits, logits_row, self.kv.layout_version(), self.buffers.version())
        if layout != self.prefill_layout:
            self.prefill_layout = None
            self.bind(self.prefill_binding, row, 1, count, num_logits, logits_row)
            self.prefill_layout = layout
        self.run(self.prefill_binding, self.shrinking_options if gives_back else None)
        if gives_back and self.after_shrinking is not None:
            self.after_shrinking()
        PyErr_CheckSignals()
        return 0

    def compute(self, state):
        """Have the logits of the next tokens of `state` (_core.DecodeState) at `logits_address`, row by row."""
        self.arrange(state)
        self.run_next(state)

    def arrange(self, state):
        """Bring the KV cache's rows into the order that `state` wants; once for each step."""
        cdef DecodeState* decode = <DecodeState*>PyCapsule_GetPointer(state._capsule(), "sabiyarn_edge.DecodeState")
        cdef int64_t num_rows, row
        cdef bint moved
        with nogil:
            num_rows = decode.num_rows()
            moved = num_rows != self.kv.num_rows()
            for row in range(num_rows):
                if decode.row_sources()[row] != row:
                    moved = True
            if moved:
                self.kv.reorder(decode.row_sources(), num_rows)

    def run_next(self, state):
        """Run the state's next tokens behind the KV cache's rows, which are in its order."""
        cdef DecodeState* decode = <DecodeState*>PyCapsule_GetPointer(state._capsule(), "sabiyarn_edge.DecodeState")
        cdef int64_t num_rows, row, length
        with nogil:
            num_rows = decode.num_rows()
            self.buffers.reserve(num_rows, 1, 1)
            for row in range(num_rows):
                # Not the state's position: a row whose positions have ended may have started again.
                self.buffers.position_ids()[row] = self.kv.next_position(row)
                length = self.kv.begin_append(row, 1)
                self.buffers.input_ids()[row] = decode.next_tokens()[row]
                self.buffers.seqlens_k()[row] = <int32_t>(length - 1)
            self.buffers.logits_index()[0] = 0
        layout = (num_rows, self.kv.layout_version(), self.buffers.version())
        if layout != self.decode_layout:
            self.decode_layout = None
            self.bind(self.decode_binding, 0, num_rows, 1, 1, 0)
            self.decode_layout = layout
        self.run(self.decode_binding, None)
        PyErr_CheckSignals()

    def release(self):
        """Forget all bindings, so that no address of the KV cache or the buffers stays with onnxruntime."""
        for binding in (self.prefill_binding, self.decode_binding):
            binding.clear_binding_inputs()
            binding.clear_binding_outputs()
        self.prefill_layout = self.decode_layout = None


cdef class LookupRunner:
    """Prompt lookup decoding for one greedy row: verifies guesses copied from the text so far in one run.

    A backend for DecodeLoop. Where the token that was chosen is the one that was guessed, its logits are there
    already and `compute` runs nothing; a wrong guess and what follows it is forgotten. The chosen tokens are those of
    plain decoding. On a full ring, where forgetting would not bring evicted keys back, nothing is guessed.

    Args:
        runner: the GraphRunner whose row 0 was prefilled.
        max_guesses: most tokens guessed at once.
        max_ngram: longest run of newest ids that is looked up.
        max_positions: positions that the model has.
    """

    cdef GraphRunner runner
    cdef vector[int32_t] guesses
    cdef size_t num_guesses, num_right, max_guesses, max_ngram
    cdef int64_t max_positions
    cdef list bindings
    cdef readonly int64_t num_runs

    def __init__(self, GraphRunner runner, *, max_guesses, max_ngram, max_positions):
        self.runner = runner
        self.max_guesses, self.max_ngram, self.max_positions = max_guesses, max_ngram, max_positions
        self.guesses.resize(max_guesses)
        self.num_guesses = self.num_right = 0
        self.bindings = [None] * (max_guesses + 1)  # by number of guesses: (binding, layout it was made for)
        self.num_runs = 0
        # All at once, before the prefill puts logits there.
        runner.buffers.reserve(1, 1 + max_guesses, 1 + max_guesses)

    @property
    def logits_address(self) -> int:
        """Where the logits [1, vocab_size] of the state's row lie."""
        return <size_t>(self.runner.buffers.logits() + self.num_right * <size_t>self.runner.buffers.vocab_size())

    def compute(self, state):
        """Have the logits of the state's next token: from the last run if it was guessed, else from a new run."""
        cdef DecodeState* decode = <DecodeState*>PyCapsule_GetPointer(state._capsule(), "sabiyarn_edge.DecodeState")
        if self.num_right < self.num_guesses and decode.next_tokens()[0] == self.guesses[self.num_right]:
            self.num_right += 1
            return
        self.arrange(state)
        self.run_next(state)

    def arrange(self, state):
        """Forget the guesses that were not chosen."""
        cdef KvCache* kv = self.runner.kv
        with nogil:
            kv.truncate(0, kv.next_position(0) - <int64_t>(self.num_guesses - self.num_right))
            self.num_right = self.num_guesses = 0

    def run_next(self, state):
        """Run the state's next token and what is guessed to follow it."""
        cdef DecodeState* decode = <DecodeState*>PyCapsule_GetPointer(state._capsule(), "sabiyarn_edge.DecodeState")
        cdef StepBuffers* buffers = self.runner.buffers
        cdef KvCache* kv = self.runner.kv
        cdef int32_t token = <int32_t>decode.next_tokens()[0]
        cdef int64_t position = kv.next_position(0)
        cdef int64_t i, count, length, room
        with nogil:
            room = min(kv.free_positions(0), self.max_positions - position) - 1
            if room > 0:
                self.num_guesses = look_up_next(decode[0], self.max_ngram, min(<size_t>room, self.max_guesses),
                                                self.guesses.data())
            count = 1 + <int64_t>self.num_guesses
            length = kv.begin_append(0, count)
            for i in range(count):
                buffers.input_ids()[i] = token if i == 0 else self.guesses[i - 1]
                buffers.position_ids()[i] = position + i
                buffers.logits_index()[i] = i
            buffers.seqlens_k()[0] = <int32_t>(length - 1)
        layout = (kv.layout_version(), buffers.version())
        bound = self.bindings[count - 1]
        if bound is None or bound[1] != layout:
            binding = self.runner.new_binding() if bound is None else bound[0]
            self.runner.bind(binding, 0, 1, count, count, 0)
            self.bindings[count - 1] = bound = (binding, layout)
        self.runner.run(bound[0], None)
        self.num_runs += 1
        PyErr_CheckSignals()


cdef class DecodeLoop:
    """Alternates the core's selection and the model's computation until every row has ended.

    Args:
        state: `_core.DecodeState`, before its first commit.
        backend: has `logits_address` (of float32 [rows, vocab_size], C order, overwritten) and `compute(state)`,
            which fills them for the state's next tokens. `GraphRunner` is one; the torch reference has another.
        before_scores, after_scores, after_choice: called before the score pipeline with the state, between it and
            the choice of tokens with the state and the scores [rows, vocab_size] to change in place, and before the
            choice is committed with the state; None where there is nothing to do. after_choice returns extra stops,
            one bool per candidate.
    """

    cdef DecodeState* decode
    cdef object state, backend, before_scores, after_scores, after_choice

    def __init__(self, state, backend, *, before_scores=None, after_scores=None, after_choice=None):
        self.decode = <DecodeState*>PyCapsule_GetPointer(state._capsule(), "sabiyarn_edge.DecodeState")
        self.state = state  # owns what `decode` points to
        self.backend = backend
        self.before_scores, self.after_scores, self.after_choice = before_scores, after_scores, after_choice

    def select(self) -> bool:
        """Choose the next tokens from the logits at hand; returns whether every row has ended.

        Raises:
            NumericalError: a row's scores are NaN or leave no token to choose.
        """
        cdef float* logits = <float*><size_t>self.backend.logits_address
        if self.before_scores is not None:
            self.before_scores(self.state)
        with nogil:
            self.decode.process(logits)
        if self.after_scores is not None:
            self.after_scores(self.state, np.asarray(
                <float[:self.decode.num_rows(), :self.decode.vocab_size()]>logits))
        try:
            with nogil:
                self.decode.propose(logits)
        except ValueError as error:  # the core's std::invalid_argument names the row
            raise NumericalError(
                f"{error}. The model's weights may be damaged, or the options forbid every token."
            ) from error
        if self.after_choice is None:
            with nogil:
                self.decode.commit()
        else:
            self.state.commit(self.after_choice(self.state))
        return self.decode.finished()

    def compute(self) -> None:
        """Compute the logits of the tokens that were chosen."""
        self.backend.compute(self.state)

    def run(self) -> None:
        """Select and compute until every row has ended."""
        while not self.select():
            self.backend.compute(self.state)
