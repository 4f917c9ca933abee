// csrc/core/kv/kv_cache.hpp - keys and values of every layer as float16, float32 or int8, one buffer per layer
// and side.
//
// Values are [rows, num_heads, capacity, head_dim], keys [rows, num_heads, capacity / 16, head_dim, 16]:
// sixteen keys are woven, so that one query multiplies sixteen keys at once without a horizontal sum. Sixteen
// slots of either are the same number of adjacent bytes, and only such tiles are ever copied. Rows are
// independent: each has a ring of its own (window_ring.hpp). No memory is taken before the first reserve() or
// begin_append(); capacity then doubles, one layer's buffer at a time, up to the ring's size.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/kv/page_buffer.hpp"
#include "core/kv/window_ring.hpp"

namespace sabiyarn {

// int8 values stand for themselves times a scale that the graph knows; the cache only keeps them.
enum class KvDtype : std::uint8_t { kFloat16, kFloat32, kInt8 };

inline constexpr std::int64_t kKeyTile = 16;  // keys that are woven

constexpr std::size_t value_bytes(KvDtype dtype) noexcept {
  return dtype == KvDtype::kInt8 ? 1 : dtype == KvDtype::kFloat16 ? 2 : 4;
}

struct KvShape {
  std::int64_t num_layers;
  std::int64_t num_heads;
  std::int64_t head_dim;
  KvDtype dtype;
};

class KvCache {
 public:
  // window, num_sink_tokens, slack: of every row's WindowRing. min_capacity: the first allocation, in
  // positions, rounded up to whole tiles; doubled as needed.
  KvCache(KvShape shape, std::int64_t window, std::int64_t num_sink_tokens = 0, std::int64_t slack = 0,
          std::int64_t min_capacity = 256);

  // Adds empty rows, so that there are `num_rows`; the others stay as they are.
  void resize(std::int64_t num_rows);

  // Makes the capacity hold at least `positions` (at most ring_size()): call it before rows of known length
  // are filled, so that nothing is laid out twice.
  void reserve(std::int64_t positions);

  // Makes room in `row` for `count` new tokens, at most max_append(row), which the graph then writes. Returns
  // the row's total with them.
  std::int64_t begin_append(std::int64_t row, std::int64_t count);

  // Each of the targets, other rows, continues the first `total` tokens of `source`; what they held is lost. Rows
  // that begin alike share the pages of their beginning, and only what follows it is copied.
  void fork(std::int64_t source, const std::int32_t* targets, std::int64_t num_targets, std::int64_t total);

  // Forgets the newest tokens of `row` so that its next position is `total`.
  void truncate(std::int64_t row, std::int64_t total);

  // Forgets all tokens of `row`: its next position is 0. restart() keeps the row's memory; release_row()
  // gives it back to the system, as far as it is whole pages, and keeps the addresses.
  void restart(std::int64_t row);
  void release_row(std::int64_t row);

  // Keys and values of the positions first ... end - 1, all held, as [num_layers, 2, num_heads, end - first,
  // head_dim] values of the cache's type.
  void read(std::int64_t row, std::int64_t first, std::int64_t end, std::byte* target) const;
  // Appends `count` positions whose keys and values have that layout.
  void write(std::int64_t row, std::int64_t count, const std::byte* source);

  // Zeroes what was written and keeps the memory / gives the memory back. Both forget every row.
  void clear() noexcept;
  void free() noexcept;

  const KvShape& shape() const noexcept { return shape_; }
  std::int64_t window() const noexcept { return empty_ring_.window(); }
  std::int64_t num_sink_tokens() const noexcept { return empty_ring_.num_sinks(); }
  std::int64_t ring_size() const noexcept { return empty_ring_.size(); }  // the largest capacity
  std::int64_t num_rows() const noexcept { return static_cast<std::int64_t>(rings_.size()); }
  std::int64_t capacity() const noexcept { return capacity_; }
  // The position of the next token of `row`.
  std::int64_t next_position(std::int64_t row) const { return ring(row).total(); }
  // Positions below it are evicted, but for the sinks; 0 until the first eviction.
  std::int64_t oldest(std::int64_t row) const { return ring(row).oldest(); }
  // Leading slots in which two rows hold the same keys and values.
  std::int64_t shared_slots(std::int64_t row, std::int64_t other) const {
    return shared_.at(static_cast<std::size_t>(row * num_rows() + other));
  }
  // The most tokens that begin_append() takes at once.
  std::int64_t max_append(std::int64_t row) const { return ring(row).max_append(); }
  const WindowRing& ring(std::int64_t row) const { return rings_.at(static_cast<std::size_t>(row)); }

  // 2 * layers * heads * head_dim * bytes of one value: 36,864 for SabiYarn-125M in float16, 18,432 in int8.
  std::size_t bytes_per_position() const noexcept;
  // Exactly what the buffers take of the address space. Pages that were never written, and shared ones, take
  // less memory than that.
  std::size_t nbytes() const noexcept;

  // Start of a layer's buffer; row r begins row_bytes() * r behind it. Null before the first reserve().
  std::byte* keys(std::int64_t layer) const {
    return buffers_.at(static_cast<std::size_t>(2 * layer)).data();
  }
  std::byte* values(std::int64_t layer) const {
    return buffers_.at(static_cast<std::size_t>(2 * layer + 1)).data();
  }
  std::size_t row_bytes() const noexcept { return row_bytes(capacity_); }

  // Changes whenever an address, the capacity or the number of rows does: bindings made before are stale
  // then.
  std::uint64_t layout_version() const noexcept { return layout_version_; }

 private:
  std::size_t slot_bytes() const noexcept;  // one head's values of one position
  std::size_t row_bytes(std::int64_t capacity) const noexcept;
  std::int64_t& shared(std::int64_t a, std::int64_t b) noexcept {
    return shared_[static_cast<std::size_t>(a * num_rows() + b)];
  }
  template <typename Bits, typename Move>
  void for_each_position(std::int64_t row, std::int64_t first, std::int64_t end, const Move& move) const;
  std::int64_t capacity_for(std::int64_t positions, std::int64_t at_least) const noexcept;
  void unshare_from(std::int64_t row, std::int64_t slot) noexcept;

  bool has_room(std::int64_t rows, std::int64_t capacity) const noexcept;
  // Same rows, larger capacity: in place where the memory suffices.
  void grow(std::int64_t capacity);
  // New memory, one buffer at a time; rows that begin alike share the pages of their beginning.
  void lay_out(std::int64_t num_rows, std::int64_t capacity);
  bool worth_sharing(std::int64_t slots, std::int64_t capacity) const noexcept;
  // Has the targets, parts of a buffer for one row each, show the same pages: a row's slots [0, end_slot). False if
  // the system lacks such pages; nothing was changed then, or some targets show them already.
  bool show(const std::byte* source, std::int64_t source_capacity, const std::vector<std::byte*>& targets,
            std::int64_t capacity, std::int64_t end_slot) const noexcept;

  // Copies whole tiles: first_slot is rounded down, end_slot up.
  void copy_slots(const std::byte* source, std::int64_t source_capacity, std::byte* target,
                  std::int64_t target_capacity, std::int64_t first_slot,
                  std::int64_t end_slot) const noexcept;

  KvShape shape_;
  WindowRing empty_ring_;
  std::int64_t min_capacity_;
  std::int64_t capacity_ = 0;
  std::uint64_t layout_version_ = 0;
  std::vector<PageBuffer> buffers_;   // [2 * num_layers]: keys and values of layer 0, of layer 1, ...
  bool shares_pages_ = false;         // do rows show pages of a common beginning?
  std::vector<WindowRing> rings_;     // [num_rows]
  std::vector<std::int64_t> shared_;  // [num_rows, num_rows]: leading slots that two rows have in common
};

}  // namespace sabiyarn
