// csrc/core/kv/step_buffers.hpp - what one run of the graph reads and writes besides keys and values.
//
// Addresses stay the same from step to step, so they are bound once; they change only when a larger run asks
// for more (version() tells).
#pragma once

#include <cstdint>

#include "core/kv/page_buffer.hpp"

namespace sabiyarn {

class StepBuffers {
 public:
  static constexpr std::int64_t kSegmentFields = 5;  // row, num_tokens, total, oldest, mask_at

  explicit StepBuffers(std::int64_t vocab_size);

  // Makes room for a run of that many tokens, segments, rows of logits and float32 values of masks.
  void reserve(std::int64_t tokens, std::int64_t segments, std::int64_t num_logits, std::int64_t mask_values);
  void free() noexcept;

  std::int64_t* input_ids() const noexcept { return at(0); }               // [tokens]
  std::int64_t* position_ids() const noexcept { return at(tokens_); }      // [tokens]
  std::int64_t* segments() const noexcept { return at(2 * tokens_); }      // [segments, kSegmentFields]
  std::int64_t* logits_index() const noexcept { return at(7 * tokens_); }  // [num_logits]
  std::int64_t* window() const noexcept { return at(8 * tokens_); }        // [2]
  float* mask() const noexcept { return reinterpret_cast<float*>(mask_.data()); }  // [mask_values]
  float* logits() const noexcept {
    return reinterpret_cast<float*>(logits_.data());
  }  // [num_logits, vocab_size]

  std::int64_t vocab_size() const noexcept { return vocab_size_; }
  std::uint64_t version() const noexcept { return version_; }
  std::size_t mask_nbytes() const noexcept { return mask_.size(); }
  std::size_t nbytes() const noexcept { return inputs_.size() + mask_.size() + logits_.size(); }

 private:
  std::int64_t* at(std::int64_t index) const noexcept {
    return reinterpret_cast<std::int64_t*>(inputs_.data()) + index;
  }

  std::int64_t vocab_size_;
  std::int64_t tokens_ = 0;  // that fit; as many segments, and rows of logits, fit too
  std::uint64_t version_ = 0;
  PageBuffer inputs_;
  PageBuffer mask_;
  PageBuffer logits_;
};

}  // namespace sabiyarn
