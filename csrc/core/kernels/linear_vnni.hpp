// csrc/core/kernels/linear_vnni.hpp - products of bytes with VNNI's dot product, which takes unsigned by signed ones.
//
// Included behind the definitions of
//   SABIYARN_KERNEL                   attributes of every function here: the instruction set
//   dot_products(sums, unsigned_bytes, signed_bytes)
//                                     adds four products to each of eight sums
// by linear_avx_vnni.cpp and linear_avx512_vnni.cpp, and by a test that brings its own dot products.
//
// Signed weights become unsigned by 128 more, which is a change of their highest bit: the sum of the row's
// codes, 128 times, is what the result has too much.
#pragma once

#include "core/kernels/linear_nibbles_x86.hpp"

namespace sabiyarn {
namespace {

// A dot product ends four or five cycles after it began, so those that follow each other need sums of their own: as
// many groups in a row as this, each with its own.
template <int kRows>
constexpr int kByteChains = kRows == 1 ? 4 : 2;

// Of group g of those that come next, where it begins a cache line.
template <bool kAhead>
[[gnu::always_inline]] SABIYARN_KERNEL inline void prefetch(const std::byte* weights,
                                                            std::int64_t g) noexcept {
  if constexpr (kAhead) {
    if (g % 2 == 0) _mm_prefetch(reinterpret_cast<const char*>(weights) + kPrefetch, _MM_HINT_T0);
  }
}

template <int kRows>
[[gnu::always_inline]] SABIYARN_KERNEL inline void add_bytes(const std::byte* weights,
                                                             const std::int8_t* codes, std::int64_t stride,
                                                             __m256i* sums) noexcept {
  const __m256i raised = _mm256_xor_si256(load(weights), _mm256_set1_epi8(-128));
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) sums[r] = dot_products(sums[r], raised, four_codes(codes + r * stride));
}

template <int kRows, bool kAhead>
[[gnu::always_inline]] SABIYARN_KERNEL inline void byte_sums(const std::byte* weights,
                                                             const std::int8_t* codes, std::int64_t stride,
                                                             const std::int32_t* row_sums,
                                                             std::int64_t sum_stride, std::int64_t groups,
                                                             EightInts* sums) noexcept {
  constexpr int kChains = kByteChains<kRows>;
  __m256i total[std::size_t{kChains}][std::size_t{kRows}];
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    total[0][r] = _mm256_set1_epi32(-128 * row_sums[r * sum_stride]);
    SABIYARN_UNROLL
    for (int c = 1; c < kChains; ++c) total[c][r] = _mm256_setzero_si256();
  }
  for (; groups >= kChains; groups -= kChains) {
    SABIYARN_UNROLL
    for (int c = 0; c < kChains; ++c, weights += kGroupBytes, codes += 4) {
      prefetch<kAhead>(weights, c);
      add_bytes<kRows>(weights, codes, stride, total[c]);
    }
  }
  for (; groups > 0; --groups, weights += kGroupBytes, codes += 4) {
    add_bytes<kRows>(weights, codes, stride, total[0]);
  }
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    SABIYARN_UNROLL
    for (int c = 1; c < kChains; ++c) total[0][r] = _mm256_add_epi32(total[0][r], total[c][r]);
    sums[r] = reinterpret_cast<EightInts>(total[0][r]);
  }
}

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/linear_kernel.hpp"
