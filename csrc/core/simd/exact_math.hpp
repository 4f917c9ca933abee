// csrc/core/simd/exact_math.hpp - exp, log and pow from additions, multiplications and bit patterns only.
//
// Math libraries differ between platforms in the last bits, and one bit can change a token. These functions use
// only operations that IEEE 754 rounds correctly, and the build forbids fused multiply-add. So x86-64 and ARM
// agree bit for bit.
#pragma once

#include <cstddef>

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
  template <typename Vector>
  [[gnu::always_inline]] static inline Vector maximum(const Vector& a, const Vector& b) noexcept {
    return a > b ? a : b;
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

// Several vectors at once, each step for all of them: one step waits for the one before it, and a CPU looks only so far
// ahead for others. Passed by reference and always inlined, so that a function compiled for AVX2 can use it with wider
// vectors.
template <typename Math, typename Vector, std::size_t kCount>
[[gnu::always_inline]] inline void exp_in_place(Vector (&x)[kCount]) noexcept {
  // x = n * ln 2 + r with |r| <= ln(2) / 2; e^x = 2^n * e^r.
  // ln 2 is split in two parts, so that n * kLn2High is exact for |n| < 2^9.
  constexpr float kLog2E = 0x1.715476p+0f, kLn2High = 0.693359375f, kLn2Low = -2.12194440e-4f;
  constexpr float kRound = 0x1.8p+23f;  // adding it leaves the nearest integer in the low bits
  // Taylor series to degree 7: the first term left out is below 6e-9.
  constexpr float kTerms[] = {1.0f / 720.0f, 1.0f / 120.0f, 1.0f / 24.0f, 1.0f / 6.0f, 0.5f};
  using Integers = decltype(x[0] > x[0]);
  const Vector lowest = Vector{} + kExpUnderflow, all = Vector{};
  Vector shifted[kCount], r[kCount], sum[kCount];
  Integers in_range[kCount];
#define SABIYARN_EACH \
  SABIYARN_UNROLL     \
  for (std::size_t i = 0; i < kCount; ++i)
  SABIYARN_EACH {
    in_range[i] = x[i] >= lowest;
    x[i] = Math::maximum(x[i], lowest);
  }
  SABIYARN_EACH shifted[i] = Math::multiply_add(x[i], all + kLog2E, all + kRound);
  SABIYARN_EACH sum[i] = shifted[i] - kRound;  // n
  SABIYARN_EACH r[i] = Math::multiply_add(sum[i], all - kLn2High, x[i]);
  SABIYARN_EACH r[i] = Math::multiply_add(sum[i], all - kLn2Low, r[i]);
  SABIYARN_EACH sum[i] = all + 1.0f / 5040.0f;
  SABIYARN_UNROLL
  for (const float term : kTerms) {
    SABIYARN_EACH sum[i] = Math::multiply_add(sum[i], r[i], all + term);
  }
  SABIYARN_EACH sum[i] = Math::multiply_add(sum[i], r[i] * r[i], r[i]);
  SABIYARN_EACH sum[i] = sum[i] + 1.0f;
  // Add n to the exponent of the sum (casts between vector types keep the bits).
  SABIYARN_EACH {
    const Integers scaled =
        reinterpret_cast<Integers>(sum[i]) + (reinterpret_cast<Integers>(shifted[i]) << 23);
    x[i] = reinterpret_cast<Vector>(scaled & in_range[i]);
  }
#undef SABIYARN_EACH
}

template <typename Math, typename Vector>
[[gnu::always_inline]] inline void exp_in_place(Vector& x) noexcept {
  Vector one[1] = {x};
  exp_in_place<Math>(one);
  x = one[0];
}

inline float exp_float(float x) noexcept {
  Floats lanes = broadcast(x);
  exp_in_place(lanes);
  return lanes[0];
}

}  // namespace sabiyarn
