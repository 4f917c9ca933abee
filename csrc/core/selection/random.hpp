// csrc/core/selection/random.hpp - random numbers that are a pure function of (seed, stream, step, draw).
//
// Philox4x32-10: ten rounds of multiply, xor and swap over a counter, keyed by the seed. There is no state, so a row's
// draws depend neither on other rows nor on the machine.
// Source: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC'11.
#pragma once

#include <array>
#include <cstdint>

namespace sabiyarn {

using PhiloxCounter = std::array<std::uint32_t, 4>;
using PhiloxKey = std::array<std::uint32_t, 2>;

constexpr PhiloxCounter philox4x32(PhiloxCounter counter, PhiloxKey key) noexcept {
  // Multipliers and key increments (golden ratio, sqrt(3) - 1) of the paper's section 4.3.
  constexpr std::uint64_t kMultiplier0 = 0xD2511F53u, kMultiplier1 = 0xCD9E8D57u;
  constexpr std::uint32_t kWeyl0 = 0x9E3779B9u, kWeyl1 = 0xBB67AE85u;
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t product0 = kMultiplier0 * counter[0];
    const std::uint64_t product1 = kMultiplier1 * counter[2];
    counter = {static_cast<std::uint32_t>(product1 >> 32) ^ counter[1] ^ key[0],
               static_cast<std::uint32_t>(product1),
               static_cast<std::uint32_t>(product0 >> 32) ^ counter[3] ^ key[1],
               static_cast<std::uint32_t>(product0)};
    key[0] += kWeyl0;
    key[1] += kWeyl1;
  }
  return counter;
}

// Returns a uniform number in [0, 1), a multiple of 2^-53.
//   stream: 0
//   step:   number of tokens generated so far
//   draw:   0, unless a step needs several numbers (beam sampling)
constexpr double uniform(std::uint64_t seed, std::uint32_t stream, std::uint32_t step,
                         std::uint32_t draw = 0) noexcept {
  const PhiloxKey key{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
  const PhiloxCounter bits = philox4x32({step, draw, stream, 0u}, key);
  const std::uint64_t word = (static_cast<std::uint64_t>(bits[1]) << 32) | bits[0];
  return static_cast<double>(word >> 11) * 0x1p-53;
}

// A seed for row `row` of a call with one seed; row 0 has the seed itself, so that a prompt alone and first in a
// batch agree. The counter's last word keeps these numbers apart from those of uniform().
constexpr std::uint64_t derived_seed(std::uint64_t seed, std::uint64_t row) noexcept {
  if (row == 0) return seed;
  const PhiloxKey key{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)};
  const PhiloxCounter bits =
      philox4x32({static_cast<std::uint32_t>(row), static_cast<std::uint32_t>(row >> 32), 0u, 1u}, key);
  return (static_cast<std::uint64_t>(bits[1]) << 32) | bits[0];
}

}  // namespace sabiyarn
