// csrc/core/kv/step_buffers.hpp - what one run of the graph reads and writes besides keys and values.
//
// The addresses stay the same from step to step, so they are bound once; they change only when a larger step
// asks for more (version() tells).
#pragma once

#include <cstdint>

#include "core/kv/page_buffer.hpp"

namespace sabiyarn {

class StepBuffers {
 public:
  explicit StepBuffers(std::int64_t vocab_size);

  // Makes room for `num_rows` rows of `num_tokens` new tokens each and for `num_logits` rows of logits.
  void reserve(std::int64_t num_rows, std::int64_t num_tokens, std::int64_t num_logits);
  void free() noexcept;

  std::int64_t* input_ids() const noexcept { return at<std::int64_t>(0); }               // [rows, tokens]
  std::int64_t* position_ids() const noexcept { return at<std::int64_t>(tokens_); }      // [rows, tokens]
  std::int64_t* logits_index() const noexcept { return at<std::int64_t>(2 * tokens_); }  // [n], n <= tokens
  // [rows]: each row's length after the step, less 1.
  std::int32_t* seqlens_k() const noexcept { return at<std::int32_t>(6 * tokens_); }
  float* logits() const noexcept {
    return reinterpret_cast<float*>(logits_.data());
  }  // [rows, n, vocab_size]

  std::int64_t vocab_size() const noexcept { return vocab_size_; }
  std::uint64_t version() const noexcept { return version_; }
  std::size_t nbytes() const noexcept { return inputs_.size() + logits_.size(); }

 private:
  template <typename T>
  T* at(std::int64_t index) const noexcept {
    return reinterpret_cast<T*>(inputs_.data()) + index;
  }

  std::int64_t vocab_size_;
  std::int64_t tokens_ = 0;  // rows * tokens that fit
  std::uint64_t version_ = 0;
  PageBuffer inputs_;
  PageBuffer logits_;
};

}  // namespace sabiyarn
