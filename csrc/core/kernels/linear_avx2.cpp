// csrc/core/kernels/linear_avx2.cpp - products of bytes with AVX2, which multiplies unsigned by signed ones.
#include "core/kernels/linear_sets.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

#include "core/simd/dispatched.hpp"

#define SABIYARN_KERNEL SABIYARN_DISPATCHED("avx2")

#include "core/simd/lane_eights.hpp"

namespace sabiyarn {
namespace {

using Eight = Floats8;
using EightInts = Ints8;

// Bytes ahead of what is read: the time of one access to memory, and no more than the next tile. Measured on Zen 3: one
// row is fastest with 1 KiB, 5 and 8 rows with 2 KiB (by 6 to 10 %).
constexpr std::ptrdiff_t kPrefetch = 1024, kPrefetchOfRows = 2048;

// 8 sums, a group of weights with its magnitudes, the ones and what is on its way: 13 of 16 registers. The more rows share
// a group's load and vpabsb, the less is left but each row's own four instructions.
constexpr int kRowsAtOnce = 8, kRowsWoven = 1, kTilesAtOnce = 1;

SABIYARN_KERNEL inline __m256i load(const void* source) noexcept {
  return _mm256_loadu_si256(static_cast<const __m256i*>(source));
}

SABIYARN_KERNEL inline __m256i four_codes(const std::int8_t* codes) noexcept {
  std::int32_t four;
  std::memcpy(&four, codes, sizeof four);
  return _mm256_set1_epi32(four);
}

// |w| * (a with the sign of w): pairs of products stay below 2 * 127 * 127, which 16 bits hold.
template <int kRows, int kTiles>
[[gnu::always_inline]] SABIYARN_KERNEL inline void byte_sums(
    const std::byte* weights, std::ptrdiff_t, const ActivationBlock& rows,
    EightInts (&sums)[std::size_t{kRows}][std::size_t{kTiles}]) noexcept {
  const __m256i ones = _mm256_set1_epi16(1);
  const std::int8_t* codes = rows.codes;
  __m256i total[std::size_t{kRows}];
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) total[r] = _mm256_setzero_si256();
  for (std::int64_t k = 0; k < rows.inputs; k += 8) {
    _mm_prefetch(reinterpret_cast<const char*>(weights) + (kRows == 1 ? kPrefetch : kPrefetchOfRows),
                 _MM_HINT_T0);
    SABIYARN_UNROLL
    for (int g = 0; g < 2; ++g, weights += kGroupBytes, codes += 4) {
      const __m256i w = load(weights), magnitude = _mm256_abs_epi8(w);
      SABIYARN_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const __m256i pairs =
            _mm256_maddubs_epi16(magnitude, _mm256_sign_epi8(four_codes(codes + r * rows.code_stride), w));
        total[r] = _mm256_add_epi32(total[r], _mm256_madd_epi16(pairs, ones));
        // Otherwise GCC adds both groups' products first, and spills sums for them (5 % slower).
        asm("" : "+x"(total[r]));
      }
    }
  }
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) sums[r][0] = reinterpret_cast<EightInts>(total[r]);
}

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/linear_four_bits_x86.hpp"
#include "core/kernels/linear_kernel.hpp"

namespace sabiyarn {
const LinearKernels kLinearAvx2 = {"avx2", normalize, round_row, multiply, multiply_floats_avx2};
}  // namespace sabiyarn

#endif
