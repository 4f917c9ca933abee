// csrc/core/kernels/attention_avx512.cpp - attention with 512 bits, on CPUs whose AVX-512 has VNNI: older ones lower
// their clock for such registers. Same sums in the same order as with AVX2.
#include "core/kernels/attention_sets.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstring>

#include "core/simd/dispatched.hpp"
#include "core/simd/half.hpp"

#define SABIYARN_KERNEL SABIYARN_DISPATCHED("avx2,fma,f16c,avx512f,avx512vl")

#include "core/kernels/attention_fma_f16c.hpp"

#define SABIYARN_SIXTEEN

namespace sabiyarn {
namespace {

using Sixteen = float __attribute__((vector_size(64)));

SABIYARN_KERNEL inline Sixteen broadcast16(float value) noexcept { return _mm512_set1_ps(value); }

SABIYARN_KERNEL inline Sixteen multiply_add(const Sixteen& a, const Sixteen& b, const Sixteen& c) noexcept {
  return _mm512_fmadd_ps(a, b, c);
}

SABIYARN_KERNEL inline Sixteen load16(const float* source) noexcept {
  Sixteen result;
  std::memcpy(&result, source, sizeof result);
  return result;
}

// With masks of all lanes: GCC 12 warns of uninitialized values inside of the intrinsics without one.
SABIYARN_KERNEL inline Sixteen load16(const half_bits* source) noexcept {
  return _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source)));
}

SABIYARN_KERNEL inline Sixteen load16(const std::int8_t* source) noexcept {
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source));
  return _mm512_maskz_cvtepi32_ps(0xffff, _mm512_maskz_cvtepi8_epi32(0xffff, bytes));
}

SABIYARN_KERNEL inline void store16(const Sixteen& value, float* target) noexcept {
  std::memcpy(target, &value, sizeof value);
}

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/attention_kernel.hpp"

namespace sabiyarn {
const AttentionKernels kAttentionAvx512 = {"avx512", append, attend};
}  // namespace sabiyarn

#endif
