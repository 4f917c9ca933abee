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

#include "core/kernels/attention_kernel.hpp"

namespace sabiyarn {
const AttentionKernels kAttentionAvx2 = {"avx2", append, attend};
}  // namespace sabiyarn

#endif
