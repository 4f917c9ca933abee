#include "core/selection/top_k.hpp"

#include <algorithm>
#include <limits>

#include "core/simd/lanes.hpp"

namespace sabiyarn {
namespace {

constexpr std::size_t kBlock = 4 * kLanes;

}  // namespace

void TopK::begin(std::size_t k) {
  k_ = k;
  count_ = 0;
  threshold_ = -std::numeric_limits<float>::infinity();
  // Room for several times k, so that the k-th is selected anew only when the buffer is full.
  const std::size_t room = std::max<std::size_t>(4 * k, 256) + kBlock;
  if (buffer_.size() < room) buffer_.resize(room);
}

void TopK::offer(std::span<const float> scores, float offset, std::int32_t first_index) {
  const std::size_t full = std::max<std::size_t>(4 * k_, 256);
  ScoredIndex* const buffer = buffer_.data();
  std::size_t i = 0;
  const auto take = [&](std::size_t at) {
    const float score = scores[at] + offset;
    buffer[count_] = {score, first_index + static_cast<std::int32_t>(at)};
    // A later index with an equal score ranks behind all that are kept, so only scores above the threshold count.
    count_ += score > threshold_ ? 1 : 0;
  };
  for (; i + kBlock <= scores.size(); i += kBlock) {
    const float* block = scores.data() + i;
    const Ints above = (load(block) + offset > threshold_) | (load(block + kLanes) + offset > threshold_) |
                       (load(block + 2 * kLanes) + offset > threshold_) |
                       (load(block + 3 * kLanes) + offset > threshold_);
    if (!any(above)) continue;
    for (std::size_t lane = 0; lane < kBlock; ++lane) take(i + lane);
    if (count_ >= full) shrink();
  }
  for (; i < scores.size(); ++i) take(i);
  if (count_ >= full) shrink();
}

void TopK::shrink() {
  const auto begin = buffer_.begin();
  const auto kept = begin + static_cast<std::ptrdiff_t>(k_);
  std::nth_element(begin, kept - 1, begin + static_cast<std::ptrdiff_t>(count_), comes_before);
  count_ = k_;
  threshold_ = (kept - 1)->score;
}

std::span<const ScoredIndex> TopK::finish() {
  if (count_ > k_) shrink();
  std::sort(buffer_.begin(), buffer_.begin() + static_cast<std::ptrdiff_t>(count_), comes_before);
  return {buffer_.data(), count_};
}

}  // namespace sabiyarn
