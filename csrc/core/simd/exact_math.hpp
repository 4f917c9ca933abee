// csrc/core/simd/exact_math.hpp - exp, log and pow from additions, multiplications and bit patterns only.
//
// Math libraries differ between platforms in the last bits, and one bit can change a token. These functions use
// only operations that IEEE 754 rounds correctly, and the build forbids fused multiply-add. So x86-64 and ARM
// agree bit for bit.
#pragma once

#include "core/simd/lanes.hpp"

namespace sabiyarn {

// e^x in float32, within 1.1 units in the last place. Below kExpUnderflow, where the result would be subnormal,
// it is 0. x must be at most 88. exp_in_place takes a vector type of any width; with SeparateMath each lane gives
// the bits of exp_float.
inline constexpr float kExpUnderflow = -87.3f;

// Math::multiply_add(a, b, c) is a * b + c. SeparateMath rounds it twice, as every CPU can; where all sums are fused
// anyway, a fused one saves a third of the operations.
struct SeparateMath {
  template <typename Vector>
  [[gnu::always_inline]] static inline Vector multiply_add(const Vector& a, const Vector& b,
                                                           const Vector& c) noexcept {
    return a * b + c;
  }
};
template <typename Math = SeparateMath, typename Vector>
void exp_in_place(Vector& x) noexcept;
float exp_float(float x) noexcept;

// Double precision, relative error below 5e-16. log needs a positive, finite, normal argument.
double exp_double(double x) noexcept;
double log_double(double x) noexcept;
// base^exponent for base > 0, relative error below 1e-15 * max(1, abs(exponent * log(base))).
double pow_double(double base, double exponent) noexcept;

// Passed by reference and always inlined, so that a function compiled for AVX2 can use it with wider vectors.
template <typename Math, typename Vector>
[[gnu::always_inline]] inline void exp_in_place(Vector& x) noexcept {
  // x = n * ln 2 + r with |r| <= ln(2) / 2; e^x = 2^n * e^r.
  // ln 2 is split in two parts, so that n * kLn2High is exact for |n| < 2^9.
  constexpr float kLog2E = 0x1.715476p+0f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 0x1.8p+23f;  // adding it leaves the nearest integer in the low bits
  using Integers = decltype(x > x);
  const Vector lowest = Vector{} + kExpUnderflow;
  const Integers in_range = x >= lowest;
  const Vector clamped = x > lowest ? x : lowest;
  const Vector all = Vector{};
  const Vector shifted = Math::multiply_add(clamped, all + kLog2E, all + kRound);
  const Vector n = shifted - kRound;
  const Vector r = Math::multiply_add(n, all - kLn2Low, Math::multiply_add(n, all - kLn2High, clamped));
  // Taylor series to degree 7: the first term left out is below 6e-9.
  Vector sum = Math::multiply_add(r, all + 1.0f / 5040.0f, all + 1.0f / 720.0f);
  sum = Math::multiply_add(sum, r, all + 1.0f / 120.0f);
  sum = Math::multiply_add(sum, r, all + 1.0f / 24.0f);
  sum = Math::multiply_add(sum, r, all + 1.0f / 6.0f);
  sum = Math::multiply_add(sum, r, all + 0.5f);
  sum = Math::multiply_add(sum, r * r, r);
  sum = sum + 1.0f;
  // Add n to the exponent of the sum (casts between vector types keep the bits).
  const Integers scaled = reinterpret_cast<Integers>(sum) + (reinterpret_cast<Integers>(shifted) << 23);
  x = reinterpret_cast<Vector>(scaled & in_range);
}

inline float exp_float(float x) noexcept {
  Floats lanes = broadcast(x);
  exp_in_place(lanes);
  return lanes[0];
}

}  // namespace sabiyarn
