# What the per-token loop uses of the C++ core. The objects are made by sabiyarn_edge._core and arrive as capsules.
from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint64_t
from libcpp cimport bool as cpp_bool


cdef extern from "core/kv/kv_cache.hpp" namespace "sabiyarn" nogil:
    cdef cppclass KvCache:
        int64_t num_rows() noexcept
        int64_t capacity() noexcept
        int64_t begin_append(int64_t row, int64_t count) except +
        void reorder(const int32_t* sources, int64_t num_rows) except +
        void truncate(int64_t row, int64_t total) except +
        int64_t next_position(int64_t row) except +
        int64_t free_positions(int64_t row) except +
        void* keys(int64_t layer) except +
        void* values(int64_t layer) except +
        size_t row_bytes() noexcept
        uint64_t layout_version() noexcept


cdef extern from "core/kv/step_buffers.hpp" namespace "sabiyarn" nogil:
    cdef cppclass StepBuffers:
        void reserve(int64_t num_rows, int64_t num_tokens, int64_t num_logits) except +
        int64_t* input_ids() noexcept
        int64_t* position_ids() noexcept
        int64_t* logits_index() noexcept
        int32_t* seqlens_k() noexcept
        float* logits() noexcept
        int64_t vocab_size() noexcept
        uint64_t version() noexcept


cdef extern from "core/decoding/decode_state.hpp" namespace "sabiyarn" nogil:
    cdef cppclass DecodeState:
        int64_t num_rows() noexcept
        const int32_t* row_sources() noexcept
        const int64_t* next_tokens() noexcept
        const int64_t* next_positions() noexcept
        int64_t vocab_size() noexcept
        cpp_bool finished() noexcept
        void process(float* logits) except +
        void propose(float* logits) except +
        void commit() except +


cdef extern from * nogil:
    """
    #include "core/decoding/decode_state.hpp"
    #include "core/decoding/prompt_lookup.hpp"

    static std::size_t look_up_next(const sabiyarn::DecodeState& state, std::size_t max_ngram,
                                    std::size_t max_guesses, sabiyarn::TokenId* guesses) {
      return sabiyarn::look_up(state.history_of(0), max_ngram, max_guesses, guesses);
    }
    """
    size_t look_up_next(const DecodeState& state, size_t max_ngram, size_t max_guesses, int32_t* guesses) except +
