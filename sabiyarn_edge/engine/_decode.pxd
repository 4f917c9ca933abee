# What the per-token loop uses of the C++ core. The objects are made by sabiyarn_edge._core and arrive as capsules.
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp cimport bool as cpp_bool


cdef extern from "core/kv/kv_cache.hpp" namespace "sabiyarn" nogil:
    cdef cppclass KvCache:
        int64_t num_rows() noexcept
        int64_t capacity() noexcept
        int64_t window() noexcept
        int64_t num_sink_tokens() noexcept
        int64_t begin_append(int64_t row, int64_t count) except +
        int64_t max_append(int64_t row) except +
        void truncate(int64_t row, int64_t total) except +
        int64_t next_position(int64_t row) except +
        int64_t oldest(int64_t row) except +
        int64_t shared_slots(int64_t row, int64_t other) except +
        void* keys(int64_t layer) except +
        void* values(int64_t layer) except +
        uint64_t layout_version() noexcept


cdef extern from "core/kv/step_buffers.hpp" namespace "sabiyarn" nogil:
    cdef cppclass StepBuffers:
        void reserve(int64_t tokens, int64_t segments, int64_t num_logits, int64_t mask_values) except +
        int64_t* input_ids() noexcept
        int64_t* position_ids() noexcept
        int64_t* segments() noexcept
        int64_t* logits_index() noexcept
        int64_t* window() noexcept
        float* mask() noexcept
        float* logits() noexcept
        int64_t vocab_size() noexcept
        uint64_t version() noexcept


cdef extern from "core/decoding/prompt_lookup.hpp" namespace "sabiyarn" nogil:
    cdef cppclass TokenIds "std::span<const sabiyarn::TokenId>":
        size_t size() noexcept
        int32_t& operator[](size_t) noexcept

    cdef cppclass Guesser:
        size_t guess(TokenIds history, float price, size_t room) noexcept
        TokenIds guesses() noexcept
        cpp_bool note(int32_t came) noexcept


cdef extern from "core/decoding/token_cost.hpp" namespace "sabiyarn" nogil:
    cdef cppclass TokenCost:
        float price(size_t rows) noexcept
        void note(size_t rows, size_t more, double seconds) noexcept


cdef extern from "core/decoding/decode_state.hpp" namespace "sabiyarn" nogil:
    cdef cppclass DecodeState:
        int64_t num_rows() noexcept
        int64_t vocab_size() noexcept
        cpp_bool finished() noexcept
        cpp_bool keeps_rows() noexcept
        const int64_t* next_tokens() noexcept
        TokenIds history_of(size_t row) except +
        void process(float* logits) except +
        void propose(float* logits) except +
        void commit() except +
        void advance(float* logits) except +
        cpp_bool no_token_left() noexcept
