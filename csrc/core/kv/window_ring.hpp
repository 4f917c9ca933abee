// csrc/core/kv/window_ring.hpp - which slot holds which position, for one row of a KV cache with a window.
//
// Keys carry their position (it is added at the model's input), so attention does not care in which order
// slots lie. Hence a ring in closed form: sinks keep their slots, every other position goes round behind
// them, and nothing ever moves. Until the ring is full, slot == position.
#pragma once

#include <algorithm>
#include <cstdint>

namespace sabiyarn {

inline constexpr std::int64_t kSlotTile = 64;  // slots of one step of attention's online softmax

// The slot of `position` among `capacity` slots whose first `num_sinks` never change hands.
constexpr std::int64_t ring_slot(std::int64_t position, std::int64_t num_sinks,
                                 std::int64_t capacity) noexcept {
  return position < capacity ? position : num_sinks + (position - num_sinks) % (capacity - num_sinks);
}

class WindowRing {
 public:
  // A token sees `window` positions, itself included: the first num_sinks of its text, which are never
  // evicted (StreamingLLM, arXiv:2309.17453), and the newest others, of which there are at least two. slack:
  // how many tokens more than one an append takes at least when the ring is full.
  explicit WindowRing(std::int64_t window, std::int64_t num_sinks = 0, std::int64_t slack = 0);

  std::int64_t window() const noexcept { return window_; }
  std::int64_t num_sinks() const noexcept { return num_sinks_; }
  // Slots: window + slack, rounded up to whole tiles of 64.
  std::int64_t size() const noexcept { return size_; }

  // The next position: tokens appended since clear(), less those truncated.
  std::int64_t total() const noexcept { return total_; }
  // Positions below it are evicted, but for the sinks; 0 until the first eviction.
  std::int64_t oldest() const noexcept { return oldest_; }
  bool holds(std::int64_t position) const noexcept {
    return position >= 0 && position < total_ && (position < num_sinks_ || position >= oldest_);
  }
  std::int64_t slot_of(std::int64_t position) const noexcept {
    return ring_slot(position, num_sinks_, size_);
  }
  // Slots [0, used_slots()) were written, and no others.
  std::int64_t used_slots() const noexcept { return oldest_ > 0 ? size_ : total_; }

  // The most tokens that one append takes so that each of them still sees its whole window.
  std::int64_t max_append() const noexcept { return std::max(size_ - total_, size_ - window_ + 1); }
  // Counts `count` tokens in, 1 <= count <= max_append().
  void append(std::int64_t count);

  // The lowest total that truncate() takes: the next token must see its whole window.
  std::int64_t min_total() const noexcept { return oldest_ > 0 ? oldest_ + window_ - num_sinks_ - 1 : 0; }
  // Forgets the newest tokens, so that total() becomes `total`. What was evicted does not come back.
  void truncate(std::int64_t total);

  void clear() noexcept { total_ = oldest_ = 0; }

 private:
  std::int64_t window_;
  std::int64_t num_sinks_;
  std::int64_t size_;
  std::int64_t total_ = 0;
  std::int64_t oldest_ = 0;
};

}  // namespace sabiyarn
