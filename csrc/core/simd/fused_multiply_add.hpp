// csrc/core/simd/fused_multiply_add.hpp - a * b + c rounded once, with the same bits on every CPU.
//
// ARM has the instruction in its baseline. x86-64 has not: there a * b is exact in double, and the sum is rounded
// to odd before it is rounded to float, which is rounding once (S. Boldo and G. Melquiond, "Emulation of a FMA and
// correctly-rounded sums: proved algorithms using rounding to odd", 2008: 53 >= 2 * 24 + 2 bits are enough).
#pragma once

#include <cstdint>

#include "core/simd/lanes.hpp"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace sabiyarn {

#if defined(__aarch64__)

inline Floats fused_multiply_add(Floats a, Floats b, Floats c) noexcept { return vfmaq_f32(c, a, b); }

#else

using FloatCouple = float __attribute__((vector_size(8)));

inline FloatCouple fused_multiply_add(const FloatCouple& a, const FloatCouple& b,
                                      const FloatCouple& c) noexcept {
  using Doubles = double __attribute__((vector_size(16)));
  using Longs = std::int64_t __attribute__((vector_size(16)));
  const Doubles product = __builtin_convertvector(a, Doubles) * __builtin_convertvector(b, Doubles);
  const Doubles addend = __builtin_convertvector(c, Doubles);
  const Doubles sum = product + addend;
  // Knuth's TwoSum: what the rounding of the sum left out.
  const Doubles part = sum - product;
  const Doubles error = (product - (sum - part)) + (addend - part);
  // Of an even sum that is not exact, the odd neighbour on the side of the error: further from zero where both have
  // one sign. Behind an infinity the error is NaN, which is neither below nor above 0.
  const auto bits = reinterpret_cast<Longs>(sum);
  const Longs even = (bits & 1) - 1, inexact = (error < 0.0) | (error > 0.0);
  const Longs step = ((error < 0.0) ^ (sum < 0.0)) | 1;
  return __builtin_convertvector(reinterpret_cast<Doubles>(bits + (step & even & inexact)), FloatCouple);
}

inline Floats fused_multiply_add(const Floats& a, const Floats& b, const Floats& c) noexcept {
  const FloatCouple low =
      fused_multiply_add(FloatCouple{a[0], a[1]}, FloatCouple{b[0], b[1]}, FloatCouple{c[0], c[1]});
  const FloatCouple high =
      fused_multiply_add(FloatCouple{a[2], a[3]}, FloatCouple{b[2], b[3]}, FloatCouple{c[2], c[3]});
  return Floats{low[0], low[1], high[0], high[1]};
}

#endif

}  // namespace sabiyarn
