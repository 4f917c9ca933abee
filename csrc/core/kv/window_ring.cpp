#include "core/kv/window_ring.hpp"

#include <limits>
#include <stdexcept>
#include <string>

namespace sabiyarn {

WindowRing::WindowRing(std::int64_t window, std::int64_t num_sink_tokens)
    : window_(window), num_sinks_(num_sink_tokens) {
  if (window < 2 || window > std::numeric_limits<std::int32_t>::max()) {
    throw std::invalid_argument("window must be between 2 and 2^31 - 1");
  }
  if (num_sink_tokens < 0 || num_sink_tokens > window - 2) {
    throw std::invalid_argument("num_sink_tokens must be between 0 and window - 2");
  }
}

std::int64_t WindowRing::oldest_recent() const noexcept {
  return total_ - std::max<std::int64_t>(length_ - num_sinks_, 0);
}

std::int64_t WindowRing::slot_of(std::int64_t position) const noexcept {
  if (position < 0 || position >= total_) return -1;
  if (position < num_sinks_) return position;
  if (position < oldest_recent()) return -1;
  if (slot_of_recent_.empty()) return position;
  return slot_of_recent_[static_cast<std::size_t>(recent_index(position))];
}

void WindowRing::place(std::int64_t position, std::int64_t slot) noexcept {
  slot_of_recent_[static_cast<std::size_t>(recent_index(position))] = static_cast<std::int32_t>(slot);
  position_of_slot_[static_cast<std::size_t>(slot)] = position;
}

void WindowRing::start_tracking() {
  slot_of_recent_.resize(static_cast<std::size_t>(window_ - num_sinks_));
  position_of_slot_.resize(static_cast<std::size_t>(window_));
  for (std::int64_t position = num_sinks_; position < length_; ++position) place(position, position);
}

std::int64_t WindowRing::append(std::int64_t count, std::vector<SlotMove>& moves) {
  moves.clear();
  if (count < 1 || count > max_append()) {
    throw std::invalid_argument(
        "an append takes between 1 token and the window less the sinks that are held");
  }
  const std::int64_t landing = std::min(length_, window_ - count);
  const std::int64_t num_evicted = length_ - landing;
  if (num_evicted > 0) {
    if (slot_of_recent_.empty()) start_tracking();
    // The evicted tokens' slots in front of the zone take in, in ascending order, the zone's live tokens.
    const std::int64_t first_kept = oldest_recent() + num_evicted;
    std::int64_t mover = landing;
    for (std::int64_t position = oldest_recent(); position < first_kept; ++position) {
      const std::int64_t freed = slot_of_recent_[static_cast<std::size_t>(recent_index(position))];
      if (freed >= landing) continue;  // it stands in the zone itself and is overwritten there
      while (position_of_slot_[static_cast<std::size_t>(mover)] < first_kept) ++mover;
      moves.push_back({mover, freed});
      ++mover;
    }
    for (const SlotMove& move : moves) {
      place(position_of_slot_[static_cast<std::size_t>(move.from)], move.to);
    }
  }
  if (!slot_of_recent_.empty()) {
    for (std::int64_t i = 0; i < count; ++i) place(total_ + i, landing + i);
  }
  length_ = landing + count;
  total_ += count;
  return landing;
}

void WindowRing::truncate(std::int64_t total, std::vector<SlotMove>& moves) {
  moves.clear();
  const std::int64_t oldest_allowed = slot_of_recent_.empty() ? 0 : oldest_recent();
  if (total < oldest_allowed || total > total_) {
    throw std::out_of_range("truncate to " + std::to_string(total) + ": the row can be cut to " +
                            std::to_string(oldest_allowed) + " to " + std::to_string(total_) +
                            " tokens; older ones were evicted, newer ones never appended");
  }
  const std::int64_t new_length = length_ - (total_ - total);
  if (!slot_of_recent_.empty()) {
    // Holes below new_length are filled with the kept tokens above it.
    std::int64_t mover = new_length;
    for (std::int64_t position = total; position < total_; ++position) {
      const std::int64_t hole = slot_of_recent_[static_cast<std::size_t>(recent_index(position))];
      if (hole >= new_length) continue;
      while (position_of_slot_[static_cast<std::size_t>(mover)] >= total) ++mover;
      moves.push_back({mover, hole});
      ++mover;
    }
    for (const SlotMove& move : moves) {
      place(position_of_slot_[static_cast<std::size_t>(move.from)], move.to);
    }
  }
  length_ = new_length;
  total_ = total;
}

void WindowRing::clear() noexcept {
  length_ = 0;
  total_ = 0;
  slot_of_recent_.clear();
  position_of_slot_.clear();
}

}  // namespace sabiyarn
