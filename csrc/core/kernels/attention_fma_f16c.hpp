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
  SABIYARN_KERNEL static inline Floats8 maximum(Floats8 a, Floats8 b) noexcept { return _mm256_max_ps(a, b); }
};

SABIYARN_KERNEL inline Floats8 load8(const half_bits* source) noexcept {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
}

SABIYARN_KERNEL inline Floats8 load8(const std::int8_t* source) noexcept {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(source));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}

struct KeyPairs {
  __m256i low, high;  // of eight keys each, in 16 bits
};
struct ScoreSums {
  __m256i low, high;
};

SABIYARN_KERNEL inline KeyPairs load_pairs(const std::int8_t* first, const std::int8_t* second) noexcept {
  const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(first));
  const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(second));
  return {_mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, b)), _mm256_cvtepi8_epi16(_mm_unpackhi_epi8(a, b))};
}

SABIYARN_KERNEL inline void add_products(ScoreSums& sums, const KeyPairs& pairs, std::int32_t two) noexcept {
  const __m256i queries = _mm256_set1_epi32(two);
  sums.low = _mm256_add_epi32(sums.low, _mm256_madd_epi16(pairs.low, queries));
  sums.high = _mm256_add_epi32(sums.high, _mm256_madd_epi16(pairs.high, queries));
}

SABIYARN_KERNEL inline void store_sums(const ScoreSums& sums, float unit, float* target) noexcept {
  store8(_mm256_mul_ps(_mm256_cvtepi32_ps(sums.low), _mm256_set1_ps(unit)), target);
  store8(_mm256_mul_ps(_mm256_cvtepi32_ps(sums.high), _mm256_set1_ps(unit)), target + 8);
}

}  // namespace
}  // namespace sabiyarn
