// csrc/core/kernels/linear_avx2.cpp - products of bytes with AVX2, which multiplies unsigned by signed ones.
#include "core/kernels/linear_sets.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

#include "core/simd/dispatched.hpp"

#define SABIYARN_KERNEL SABIYARN_DISPATCHED("avx2")

#include "core/kernels/linear_nibbles_x86.hpp"

namespace sabiyarn {
namespace {

// |w| * (a with the sign of w): pairs of products stay below 2 * 127 * 127, which 16 bits hold.
template <int kRows, bool kAhead>
[[gnu::always_inline]] SABIYARN_KERNEL inline void byte_sums(const std::byte* weights,
                                                             const std::int8_t* codes, std::int64_t stride,
                                                             const std::int32_t*, std::int64_t,
                                                             std::int64_t groups, EightInts* sums) noexcept {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i total[std::size_t{kRows}];
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) total[r] = _mm256_setzero_si256();
  for (; groups > 0; groups -= 2) {  // their number is even
    if constexpr (kAhead) _mm_prefetch(reinterpret_cast<const char*>(weights) + kPrefetch, _MM_HINT_T0);
    SABIYARN_UNROLL
    for (int g = 0; g < 2; ++g, weights += kGroupBytes, codes += 4) {
      const __m256i w = load(weights), magnitude = _mm256_abs_epi8(w);
      SABIYARN_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const __m256i pairs =
            _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(four_codes(codes + r * stride), w));
        total[r] = _mm256_add_epi32(total[r], _mm256_madd_epi16(pairs, ones));
      }
    }
  }
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) sums[r] = reinterpret_cast<EightInts>(total[r]);
}

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/linear_kernel.hpp"

namespace sabiyarn {
const LinearKernels kLinearAvx2 = {"avx2", normalize, round_row, multiply, multiply_floats_avx2};
}  // namespace sabiyarn

#endif
