// csrc/core/simd/gelu.hpp - the exact (erf) GELU, from additions and multiplications only.
//
//   gelu(x) = x * Phi(x),   Phi(x) = erfc(-x / sqrt(2)) / 2:   for x < 0 half of erfc(|x| / sqrt(2)), else 1
//   less that
//
// log(erfc(z)) is close to a parabola, and a polynomial of degree 12 without constant term follows it on [0,
// 5] (least squares on 4000 Chebyshev nodes, weights 1 + 20 e^-z): Phi is within 3e-8, which is half a unit
// in float32's last place. Behind z = 5, where Phi is below 1e-12, it stays as at 5.
#pragma once

#include "core/simd/exact_math.hpp"

namespace sabiyarn {

// In place, for a vector type of any width; always inlined, so that a function made for AVX2 can use it.
template <typename Vector>
[[gnu::always_inline]] inline void gelu_in_place(Vector& x) noexcept {
  constexpr float kCoefficients[] = {-7.79100695e-09f, 2.63227122e-07f, -3.98942439e-06f, 3.57418721e-05f,
                                     -0.000208657264f, 0.000808512617f, -0.00186011044f,  0.000274061778f,
                                     0.0191256553f,    -0.102780156f,   -0.636617482f,    -1.12837934f};
  constexpr float kSqrtHalf = 0x1.6a09e6p-1f;
  const Vector magnitude = x < 0.0f ? -x : x;
  Vector z = magnitude * kSqrtHalf;
  z = z < 5.0f ? z : Vector{} + 5.0f;
  Vector log = Vector{};
  for (const float coefficient : kCoefficients) log = (log + coefficient) * z;
  exp_in_place(log);
  const Vector tail = log * 0.5f;
  x *= x < 0.0f ? tail : 1.0f - tail;
}

}  // namespace sabiyarn
