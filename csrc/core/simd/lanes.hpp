// csrc/core/simd/lanes.hpp - four floats at once, as the vector types of GCC and Clang: one SSE2 or NEON register;
// and eight.
//
// Every loop over lanes keeps a fixed order of operations, so its result does not depend on the CPU.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sabiyarn {

inline constexpr std::size_t kLanes = 4;
using Floats = float __attribute__((vector_size(16)));
using Ints =
    std::int32_t __attribute__((vector_size(16)));  // a comparison of Floats gives -1 (true) or 0 per lane

// One register of AVX, two of SSE2 and NEON.
using Floats8 = float __attribute__((vector_size(32)));
using Ints8 = std::int32_t __attribute__((vector_size(32)));

// Before a loop of a few rounds over an array of vectors: GCC unrolls it too late otherwise, and then the
// array stays in memory.
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
