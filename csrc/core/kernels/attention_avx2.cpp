// csrc/core/kernels/attention_avx2.cpp - attention with AVX2, FMA and F16C, which came together in 2013.
#include "core/kernels/attention_sets.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

#include "core/simd/dispatched.hpp"
#include "core/simd/half.hpp"

#define SABIYARN_KERNEL SABIYARN_DISPATCHED("avx2,fma,f16c")

#include "core/simd/lane_eights.hpp"

namespace sabiyarn {
namespace {

using Eight = Floats8;

SABIYARN_KERNEL inline Floats8 multiply_add(Floats8 a, Floats8 b, Floats8 c) noexcept {
  return _mm256_fmadd_ps(a, b, c);
}

SABIYARN_KERNEL inline Floats8 load8(const half_bits* source) noexcept {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(source)));
}

SABIYARN_KERNEL inline Floats8 load8(const std::int8_t* source) noexcept {
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(source));
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes));
}

SABIYARN_KERNEL inline Floats8 sums_of(const Floats8* v) noexcept {
  const __m256 low = _mm256_hadd_ps(_mm256_hadd_ps(v[0], v[1]), _mm256_hadd_ps(v[2], v[3]));
  const __m256 high = _mm256_hadd_ps(_mm256_hadd_ps(v[4], v[5]), _mm256_hadd_ps(v[6], v[7]));
  return _mm256_add_ps(_mm256_permute2f128_ps(low, high, 0x20), _mm256_permute2f128_ps(low, high, 0x31));
}

SABIYARN_KERNEL inline void transpose(Floats8* v) noexcept {
  __m256 pairs[8], fours[8];
  for (int i = 0; i < 4; ++i) {
    pairs[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
    pairs[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    fours[i] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0x44);
    fours[i + 1] = _mm256_shuffle_ps(pairs[i], pairs[i + 2], 0xee);
    fours[i + 2] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0x44);
    fours[i + 3] = _mm256_shuffle_ps(pairs[i + 1], pairs[i + 3], 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    v[i] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x20);
    v[i + 4] = _mm256_permute2f128_ps(fours[i], fours[i + 4], 0x31);
  }
}

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/attention_kernel.hpp"

namespace sabiyarn {
const AttentionKernels kAttentionAvx2 = {"avx2", append, attend};
}  // namespace sabiyarn

#endif
