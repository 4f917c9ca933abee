#include "core/kv/window_ring.hpp"

#include <limits>
#include <stdexcept>
#include <string>

namespace sabiyarn {

namespace {

constexpr std::int64_t kMost = std::numeric_limits<std::int32_t>::max();

void check_range(const char* name, std::int64_t value, std::int64_t least, std::int64_t most) {
  if (value >= least && value <= most) return;
  throw std::invalid_argument(std::string(name) + " must be between " + std::to_string(least) + " and " +
                              std::to_string(most) + ", not " + std::to_string(value));
}

}  // namespace

WindowRing::WindowRing(std::int64_t window, std::int64_t num_sinks, std::int64_t slack)
    : window_(window), num_sinks_(num_sinks) {
  check_range("window", window, 2, kMost);
  check_range("num_sink_tokens", num_sinks, 0, window - 2);
  check_range("slack", slack, 0, kMost);
  size_ = (window + slack + kSlotTile - 1) / kSlotTile * kSlotTile;
}

void WindowRing::append(std::int64_t count) {
  if (count < 1 || count > max_append()) {
    throw std::invalid_argument("an append of " + std::to_string(count) + " tokens; behind " +
                                std::to_string(total_) + " tokens a ring of " + std::to_string(size_) +
                                " slots with a window of " + std::to_string(window_) + " takes 1 to " +
                                std::to_string(max_append()));
  }
  total_ += count;
  if (total_ > size_) oldest_ = std::max(oldest_, total_ - (size_ - num_sinks_));
}

void WindowRing::truncate(std::int64_t total) {
  if (total < min_total() || total > total_) {
    throw std::out_of_range("truncate to " + std::to_string(total) + ": the row can be cut to " +
                            std::to_string(min_total()) + " to " + std::to_string(total_) +
                            " tokens; older positions that the next token sees were evicted");
  }
  total_ = total;
}

}  // namespace sabiyarn
