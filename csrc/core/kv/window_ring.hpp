// csrc/core/kv/window_ring.hpp - which slot holds which position, for one row of a KV cache with a window.
//
// Keys carry their position (it is added at the model's input), so attention does not care in which order
// slots lie. It does care that the newest tokens are written at the end and that the live slots are [0,
// length()): CachedAttention appends behind the past and reads from slot 0. Hence a ring without
// rotation: below the window, slot == position. When `count` new tokens do not fit, the oldest go, and the
// live tokens that stand in the landing zone [window - count, window) move into the slots that became free;
// the new tokens land in the zone.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

namespace sabiyarn {

struct SlotMove {
  std::int64_t from;
  std::int64_t to;
};

class WindowRing {
 public:
  // window: slots of the row, at least 2. The first num_sink_tokens positions are never evicted
  // (StreamingLLM, arXiv:2309.17453); at least two slots remain for the others.
  explicit WindowRing(std::int64_t window, std::int64_t num_sink_tokens = 0);

  std::int64_t window() const noexcept { return window_; }
  std::int64_t length() const noexcept { return length_; }  // live tokens; they fill the slots [0, length)
  std::int64_t total() const noexcept { return total_; }  // the next position: tokens appended since clear()

  // The most tokens that one append takes: the sinks that are held stay.
  std::int64_t max_append() const noexcept { return window_ - std::min(length_, num_sinks_); }

  // Makes room for `count` tokens, 1 <= count <= max_append(), and counts them in.
  // Returns the first of the `count` adjacent slots in which they land. The caller must carry out `moves`
  // (overwritten) before anything is written; sources and targets do not overlap, so any order will do.
  std::int64_t append(std::int64_t count, std::vector<SlotMove>& moves);

  // Forgets the newest tokens so that total() becomes `total`; every forgotten token must still be held.
  // Tokens that were evicted to make room for them do not come back.
  void truncate(std::int64_t total, std::vector<SlotMove>& moves);

  // The slot that holds `position`, or -1 if it was evicted or never appended.
  std::int64_t slot_of(std::int64_t position) const noexcept;

  // The oldest position held that is not a sink (total() if there is none).
  std::int64_t oldest_recent() const noexcept;

  void clear() noexcept;

 private:
  std::int64_t recent_index(std::int64_t position) const noexcept {
    return (position - num_sinks_) % (window_ - num_sinks_);
  }
  void place(std::int64_t position, std::int64_t slot) noexcept;
  void start_tracking();

  std::int64_t window_;
  std::int64_t num_sinks_;
  std::int64_t length_ = 0;
  std::int64_t total_ = 0;
  // Both are empty until the first eviction: until then slot == position.
  std::vector<std::int32_t> slot_of_recent_;    // [window - num_sinks], by recent_index(position)
  std::vector<std::int64_t> position_of_slot_;  // [window]
};

}  // namespace sabiyarn
