// csrc/core/kernels/attention_fma_f16c.hpp - eight floats with FMA and F16C, for attention_kernel.hpp.
//
// Included behind the definition of SABIYARN_KERNEL, with at least AVX2, FMA and F16C.
#pragma once

#include <immintrin.h>

#include "core/simd/half.hpp"
#include "core/simd/lane_eights.hpp"

namespace sabiyarn {
namespace {

using Eight = Floats8;

SABIYARN_KERNEL inline Floats8 multiply_add(Floats8 a, Floats8 b, Floats8 c) noexcept {
  return _mm256_fmadd_ps(a, b, c);
}

struct Fused {
  SABIYARN_KERNEL static inline Floats8 multiply_add(Floats8 a, Floats8 b, Floats8 c) noexcept {
    return sabiyarn::multiply_add(a, b, c);
  }
};

SABIYARN_KERNEL inline Floats8 load8(const half_bits* source) noexcept {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
}

SABIYARN_KERNEL inline Floats8 load8(const std::int8_t* source) noexcept {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(source));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}

}  // namespace
}  // namespace sabiyarn
