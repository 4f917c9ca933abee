// build_support/vnni_copies.cpp - running sums of VNNI's dot products by intrinsics, as the kernels have them, for the
// build to look at the compiler's output: a compiler with GCC's bug 94663 copies sums from register to register.
#include <immintrin.h>

#include <cstddef>
#include <cstdint>

constexpr int kRows = 4;

__attribute__((target("avx2,avxvnni"))) void add_dot_products(__m256i* sums, const __m256i* weights,
                                                              const std::int32_t* inputs, std::size_t count) {
  __m256i first[kRows], second[kRows];
  for (int row = 0; row < kRows; ++row) {
    first[row] = sums[2 * row];
    second[row] = sums[2 * row + 1];
  }
  for (std::size_t i = 0; i < count; ++i) {
    for (int row = 0; row < kRows; ++row) {
      const __m256i input = _mm256_set1_epi32(inputs[kRows * i + row]);
      first[row] = _mm256_dpbusd_avx_epi32(first[row], weights[2 * i], input);
      second[row] = _mm256_dpbusd_avx_epi32(second[row], weights[2 * i + 1], input);
    }
  }
  for (int row = 0; row < kRows; ++row) {
    sums[2 * row] = first[row];
    sums[2 * row + 1] = second[row];
  }
}
