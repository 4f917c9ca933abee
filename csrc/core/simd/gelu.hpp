// csrc/core/simd/gelu.hpp - the exact (erf) GELU, from additions and multiplications only.
//
//   gelu(x) = x * Phi(x),   Phi(x) = erfc(-x / sqrt(2)) / 2
//   Phi(x)  = tail        for x < 0
//             1 - tail    otherwise,   tail = erfc(z) / 2,   z = |x| / sqrt(2)
//
// log(erfc(z)) is close to a parabola. A polynomial of degree 12 without constant term fits it on [0, 5]: least squares
// on 4000 Chebyshev nodes, weights 1 + 20 e^-z. Phi is then within 3e-8, half a unit in float32's last place.
// Above z = 5, where erfc(z) is below 2e-12, the value at 5 is used.
#pragma once

#include "core/simd/exact_math.hpp"

namespace sabiyarn {

// In place, for a vector type of any width. Always inlined, so that a function compiled for AVX2 can use it.
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
