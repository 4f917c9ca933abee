// csrc/core/kernels/linear_floats_avx2.cpp - products with float tiles with AVX2, FMA and F16C.
#include "core/kernels/linear_sets.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

#include "core/kernels/float_types.hpp"
#include "core/simd/dispatched.hpp"

#define SABIYARN_KERNEL SABIYARN_DISPATCHED("avx2,fma,f16c")

#include "core/simd/lane_eights.hpp"

namespace sabiyarn {
namespace {

using Eight = Floats8;

constexpr std::ptrdiff_t kPrefetch = 2048;  // bytes ahead of what is read

SABIYARN_KERNEL inline Eight widened(const Float32* weights) noexcept {
  return _mm256_loadu_ps(&weights->value);
}
SABIYARN_KERNEL inline Eight widened(const Float16* weights) noexcept {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(weights)));
}
SABIYARN_KERNEL inline Eight widened(const Bfloat16* weights) noexcept {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(weights)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
SABIYARN_KERNEL inline Eight broadcast_load(const float* value) noexcept {
  return _mm256_broadcast_ss(value);
}
SABIYARN_KERNEL inline Eight fused(Eight a, Eight b, Eight c) noexcept { return _mm256_fmadd_ps(a, b, c); }

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/linear_floats.hpp"

namespace sabiyarn {
SABIYARN_KERNEL void multiply_floats_avx2(const TiledMatrix& weights, const float* rows,
                                          std::int64_t num_rows, std::int64_t first, std::int64_t end,
                                          const LinearOutput& output) noexcept {
  multiply_floats(weights, rows, num_rows, first, end, output);
}
}  // namespace sabiyarn

#endif
