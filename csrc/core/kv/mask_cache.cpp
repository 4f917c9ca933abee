#include "core/kv/mask_cache.hpp"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <string>

namespace sabiyarn {

namespace {

std::int64_t round_up(std::int64_t positions) {
  return static_cast<std::int64_t>(std::bit_ceil(static_cast<std::uint64_t>(positions)));
}

PageBuffer make_mask(std::int64_t size) {
  const auto width = static_cast<std::size_t>(size);
  PageBuffer mask(width * width);  // zeros
  for (std::size_t query = 0; query < width; ++query) {
    std::memset(mask.data() + query * width, 1, query + 1);
  }
  return mask;
}

}  // namespace

MaskCache::MaskCache(std::int64_t largest, std::int64_t smallest) {
  if (largest < 1 || smallest < 1) throw std::invalid_argument("a mask has at least one position");
  largest_ = round_up(largest);
  smallest_ = round_up(smallest);
}

std::int64_t MaskCache::size_for(std::int64_t positions) const {
  if (positions < 1 || positions > largest_) {
    throw std::out_of_range("a mask of " + std::to_string(positions) +
                            " positions was asked for; it has 1 to " + std::to_string(largest_));
  }
  return std::max(smallest_, round_up(positions));
}

MaskRows MaskCache::rows(std::int64_t first, std::int64_t count) {
  if (first < 0 || count < 1) throw std::invalid_argument("a chunk has at least one token");
  const std::int64_t size = size_for(first + count);
  auto found = masks_.find(size);
  if (found == masks_.end()) {
    found = masks_.emplace(size, make_mask(size)).first;
    nbytes_.fetch_add(found->second.size(), std::memory_order_relaxed);
  }
  const auto* data = reinterpret_cast<const std::uint8_t*>(found->second.data());
  return {data + first * size, size};
}

void MaskCache::write_additive(std::int64_t first, std::int64_t count, float* target, std::int64_t stride) {
  const MaskRows mask = rows(first, count);
  for (std::int64_t row = 0; row < count; ++row) {
    const std::uint8_t* allowed = mask.data + row * mask.stride;
    std::transform(allowed, allowed + first + count, target + row * stride, [](std::uint8_t may) {
      return may != 0 ? 0.0F : -std::numeric_limits<float>::infinity();
    });
  }
}

std::vector<std::int64_t> MaskCache::sizes() const {
  std::vector<std::int64_t> sizes;
  for (const auto& [size, mask] : masks_) sizes.push_back(size);
  return sizes;
}

}  // namespace sabiyarn
