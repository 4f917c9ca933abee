// csrc/core/kv/mask_cache.hpp - causal masks by power of two, made when first asked for and kept per size.
//
// A mask of n positions is bool [n, n], 1 = may attend, and takes exactly n * n bytes: 16 / 64 / 256 / 1024
// MiB at 4096 / 8192 / 16384 / 32768. Only its lower triangle is ever written, so about half of that becomes
// physical memory. Ordinary causal decoding needs no mask and asks for none: 0 bytes.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <vector>

#include "core/kv/page_buffer.hpp"

namespace sabiyarn {

// What positions [first, first + count) may attend to: row i is data + i * stride, of which the first
// first + count entries count. Valid until MaskCache::free().
struct MaskRows {
  const std::uint8_t* data;
  std::int64_t stride;
};

class MaskCache {
 public:
  // largest: the most positions a mask is asked for (the model's block_size). smallest: the first size; both
  // are rounded up to powers of two.
  explicit MaskCache(std::int64_t largest, std::int64_t smallest = 64);

  // The size whose mask serves `positions`: the next power of two, at least the smallest.
  std::int64_t size_for(std::int64_t positions) const;

  // Rows of the causal mask, for a chunk of `count` >= 1 tokens on top of `first` past ones.
  MaskRows rows(std::int64_t first, std::int64_t count);

  // The same rows as a graph adds them to its scores: 0 = may attend, -infinity = may not. Row i is written
  // to target + i * stride, first + count values each.
  void write_additive(std::int64_t first, std::int64_t count, float* target, std::int64_t stride);

  void free() noexcept {
    masks_.clear();
    nbytes_.store(0, std::memory_order_relaxed);
  }

  std::vector<std::int64_t> sizes() const;  // made so far, ascending
  // Of all masks made so far: the sum of size * size. May be asked while another thread makes one.
  std::size_t nbytes() const noexcept { return nbytes_.load(std::memory_order_relaxed); }

 private:
  std::int64_t largest_;
  std::int64_t smallest_;
  std::map<std::int64_t, PageBuffer> masks_;
  std::atomic<std::size_t> nbytes_ = 0;
};

}  // namespace sabiyarn
