#include "core/kernels/memory_read.hpp"

#include <array>

namespace sabiyarn {

std::uint64_t exclusive_or(const std::uint64_t* words, std::size_t count) noexcept {
  // As many independent sums as a core has loads under way; the compiler makes vectors of them.
  constexpr std::size_t width = 16;
  std::array<std::uint64_t, width> sums{};
  std::size_t i = 0;
  for (; i + width <= count; i += width)
    for (std::size_t lane = 0; lane < width; ++lane) sums[lane] ^= words[i + lane];
  for (; i < count; ++i) sums[0] ^= words[i];
  std::uint64_t result = 0;
  for (const std::uint64_t sum : sums) result ^= sum;
  return result;
}

}  // namespace sabiyarn
