#include "core/kv/step_buffers.hpp"

#include <bit>
#include <stdexcept>

namespace sabiyarn {

StepBuffers::StepBuffers(std::int64_t vocab_size) : vocab_size_(vocab_size) {
  if (vocab_size < 1) throw std::invalid_argument("vocab_size must be at least 1");
}

void StepBuffers::reserve(std::int64_t num_rows, std::int64_t num_tokens, std::int64_t num_logits) {
  if (num_rows < 1 || num_tokens < 1 || num_logits < 0) {
    throw std::invalid_argument("a step has at least one row and one token");
  }
  if (num_rows * num_tokens > tokens_) {
    const auto tokens =
        static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(num_rows * num_tokens)));
    // Three int64 arrays, then seqlens_k (int32, as long).
    inputs_ =
        PageBuffer(static_cast<std::size_t>(tokens) * (3 * sizeof(std::int64_t) + sizeof(std::int32_t)));
    tokens_ = tokens;
    ++version_;
  }
  const auto logits_bytes = static_cast<std::size_t>(num_rows * num_logits * vocab_size_) * sizeof(float);
  if (logits_bytes > logits_.size()) {
    logits_ = PageBuffer(logits_bytes);
    ++version_;
  }
}

void StepBuffers::free() noexcept {
  inputs_ = PageBuffer();
  logits_ = PageBuffer();
  tokens_ = 0;
  ++version_;
}

}  // namespace sabiyarn
