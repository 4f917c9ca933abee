// csrc/core/kv/kv_cache.hpp - keys and values of every layer as float16, float32 or int8, one buffer per layer
// and side.
//
// A buffer is [rows, num_heads, capacity, head_dim], C order, as CachedAttention takes its past. Rows are
// independent: each has its own length and its own ring (window_ring.hpp). No memory is taken before the
// first reserve() or begin_append(); capacity then doubles, one layer's buffer at a time, up to the window.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/kv/page_buffer.hpp"
#include "core/kv/window_ring.hpp"

namespace sabiyarn {

// int8 values stand for themselves times a scale that the graph knows; the cache only keeps them.
enum class KvDtype : std::uint8_t { kFloat16, kFloat32, kInt8 };

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
  // window: the most positions a row holds. min_capacity: the first allocation, in positions; doubled as
  // needed.
  KvCache(KvShape shape, std::int64_t window, std::int64_t num_sink_tokens = 0,
          std::int64_t min_capacity = 256);

  // Forgets every row and starts anew with `num_rows` empty ones. Memory is kept for the next reserve().
  void reset(std::int64_t num_rows);

  // Makes the capacity hold at least `positions` (at most the window): call it before rows of known length
  // are filled, so that nothing is laid out twice.
  void reserve(std::int64_t positions);

  // Makes room in `row` for `count` new tokens, which the graph then writes at the end of the row's live
  // slots. Returns the row's length with them: CachedAttention's seqlens_k + 1.
  std::int64_t begin_append(std::int64_t row, std::int64_t count);

  // Row i continues row sources[i]: fork, beam reorder and removal in one. Copies only rows that change, and
  // only the slots behind those that source and target share since they were forked.
  void reorder(const std::int32_t* sources, std::int64_t num_rows);

  // Forgets the newest tokens of `row` so that its next position is `total`.
  void truncate(std::int64_t row, std::int64_t total);

  // Forgets all tokens of `row`: its next position is 0.
  void restart(std::int64_t row);

  // Forgets every row but `row`, and of that one all but the first `total` positions, at least one. What is
  // kept becomes row 0, at the capacity that it needs; memory is kept. None of it may have been evicted.
  void keep_prefix(std::int64_t row, std::int64_t total);

  // Zeroes what was written and keeps the memory / gives the memory back. Both forget every row.
  void clear() noexcept;
  void free() noexcept;

  const KvShape& shape() const noexcept { return shape_; }
  std::int64_t window() const noexcept { return window_; }
  std::int64_t num_rows() const noexcept { return static_cast<std::int64_t>(rings_.size()); }
  std::int64_t capacity() const noexcept { return capacity_; }
  // The position of the next token of `row`: tokens appended since it started.
  std::int64_t next_position(std::int64_t row) const { return ring(row).total(); }
  // Tokens that `row` takes before its oldest ones are evicted.
  std::int64_t free_positions(std::int64_t row) const { return window_ - ring(row).length(); }
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
  std::int64_t common_slots(std::int64_t a, std::int64_t b) noexcept {
    return a == b ? ring(a).length() : shared(a, b);
  }
  std::int64_t capacity_for(std::int64_t positions, std::int64_t at_least) const noexcept;
  void unshare_from(std::int64_t row, std::int64_t slot) noexcept;

  // Same rows, larger capacity: in place where the memory suffices.
  void grow(std::int64_t capacity);
  // New memory, one buffer at a time; rows that begin alike share the pages of their beginning.
  void lay_out(const std::int32_t* sources, std::int64_t num_rows, std::int64_t capacity);
  bool show_prefix(const PageBuffer& from, const PageBuffer& to, std::int64_t source, std::int64_t first,
                   const std::vector<std::int64_t>& leader, std::int64_t capacity,
                   std::int64_t end_slot) const noexcept;

  // Rows in place: not more than before.
  void copy_rows(const std::int32_t* sources, std::int64_t num_rows);
  void rotate_rows(std::int64_t start, const std::int32_t* sources);
  void copy_slots(const std::byte* source, std::int64_t source_capacity, std::byte* target,
                  std::int64_t target_capacity, std::int64_t first_slot,
                  std::int64_t end_slot) const noexcept;
  void move_slots(std::int64_t row, const std::vector<SlotMove>& moves) noexcept;

  KvShape shape_;
  std::int64_t window_;
  std::int64_t num_sinks_;
  std::int64_t min_capacity_;
  std::int64_t capacity_ = 0;
  std::uint64_t layout_version_ = 0;
  std::vector<PageBuffer> buffers_;   // [2 * num_layers]: keys and values of layer 0, of layer 1, ...
  bool shares_pages_ = false;         // do rows show pages of a common beginning?
  std::vector<WindowRing> rings_;     // [num_rows]
  std::vector<std::int64_t> shared_;  // [num_rows, num_rows]: leading slots that two rows have in common

  // Kept between calls so that a decode step allocates nothing.
  std::vector<SlotMove> moves_;
  std::vector<std::int32_t> waiting_;
  std::vector<std::int32_t> identity_;
  std::vector<std::int64_t> ready_;
  std::vector<WindowRing> new_rings_;
  std::vector<std::int64_t> new_shared_;
  std::vector<std::byte> scratch_;
};

}  // namespace sabiyarn
