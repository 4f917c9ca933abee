#include "core/kv/step_buffers.hpp"

#include <bit>
#include <stdexcept>

namespace sabiyarn {

namespace {

std::int64_t power_of_two(std::int64_t count) {
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(count)));
}

}  // namespace

StepBuffers::StepBuffers(std::int64_t vocab_size) : vocab_size_(vocab_size) {
  if (vocab_size < 1) throw std::invalid_argument("vocab_size must be at least 1");
}

void StepBuffers::reserve(std::int64_t tokens, std::int64_t segments, std::int64_t num_logits,
                          std::int64_t mask_values) {
  if (tokens < 1 || segments < 1 || segments > tokens || num_logits < 0 || num_logits > tokens ||
      mask_values < 0) {
    throw std::invalid_argument("a run has at least one token, and no more segments or logits than tokens");
  }
  if (tokens > tokens_) {
    const std::int64_t room = power_of_two(tokens);
    inputs_ = PageBuffer(static_cast<std::size_t>((3 + kSegmentFields) * room + 2) * sizeof(std::int64_t));
    tokens_ = room;
    ++version_;
  }
  if (static_cast<std::size_t>(mask_values) * sizeof(float) > mask_.size()) {
    mask_ = PageBuffer(static_cast<std::size_t>(power_of_two(mask_values)) * sizeof(float));
    ++version_;
  }
  const auto logits_bytes = static_cast<std::size_t>(num_logits * vocab_size_) * sizeof(float);
  if (logits_bytes > logits_.size()) {
    logits_ = PageBuffer(logits_bytes);
    ++version_;
  }
}

void StepBuffers::free() noexcept {
  inputs_ = PageBuffer();
  mask_ = PageBuffer();
  logits_ = PageBuffer();
  tokens_ = 0;
  ++version_;
}

}  // namespace sabiyarn
