// csrc/core/simd/lanes.hpp - four floats (one SSE2 or NEON register) and eight, as vector types of GCC and Clang.
//
// Every loop over lanes keeps a fixed order of operations, so its result does not depend on the CPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sabiyarn {

inline constexpr std::size_t kLanes = 4;
using Floats = float __attribute__((vector_size(16)));
// A comparison of Floats gives Ints: -1 (true) or 0 in each lane.
using Ints = std::int32_t __attribute__((vector_size(16)));

// One register of AVX, two of SSE2 and NEON.
using Floats8 = float __attribute__((vector_size(32)));
using Ints8 = std::int32_t __attribute__((vector_size(32)));

// Stands before a short loop over an array of vectors. Otherwise GCC unrolls the loop too late, and the array stays in
// memory.
#if defined(__clang__)
#define SABIYARN_UNROLL _Pragma("unroll")
#else
#define SABIYARN_UNROLL _Pragma("GCC unroll 8")
#endif

inline Floats load(const float* source) noexcept {
  Floats result;
  std::memcpy(&result, source, sizeof result);
  return result;
}
inline void store(Floats value, float* target) noexcept { std::memcpy(target, &value, sizeof value); }
inline Floats broadcast(float value) noexcept { return Floats{value, value, value, value}; }
inline Floats maximum(const Floats& a, const Floats& b) noexcept { return a > b ? a : b; }

inline bool any(Ints mask) noexcept {
  std::uint64_t halves[2];
  std::memcpy(halves, &mask, sizeof mask);
  return (halves[0] | halves[1]) != 0;
}

}  // namespace sabiyarn
