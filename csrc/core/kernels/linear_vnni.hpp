// csrc/core/kernels/linear_vnni.hpp - products of bytes with VNNI's dot product, which takes unsigned by signed ones.
//
// Included behind the definitions of
//   SABIYARN_KERNEL                   attributes of every function here: the instruction set
//   dot_products(sums, unsigned_bytes, signed_bytes)
//                                     adds four products to each of eight sums
// by linear_avx_vnni.cpp and linear_avx512_vnni.cpp, and by a test that brings its own dot products.
//
// Signed weights become unsigned by 128 more, which is a change of their highest bit: the sum of the row's
// codes, 128 times, is what the result has too much. Half bytes are unsigned as they are.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "core/kernels/tiled_matrix.hpp"
#include "core/simd/lane_eights.hpp"

namespace sabiyarn {
namespace {

using Eight = Floats8;
using EightInts = Ints8;

// Bytes ahead of what is read: the time of one access to memory, and no more than the next tile.
constexpr std::ptrdiff_t kPrefetch = 1024;

// A dot product ends four or five cycles after it began, so those that follow each other need sums of their
// own: as many groups in a row as this, each with its own, at 4 bits one for each half.
template <int kRows>
constexpr int kByteChains = kRows == 1 ? 4 : 2;
template <int kRows>
constexpr int kNibbleChains = kRows <= 2 ? 2 : 1;

SABIYARN_KERNEL inline __m256i load(const void* source) noexcept {
  return _mm256_loadu_si256(static_cast<const __m256i*>(source));
}

SABIYARN_KERNEL inline __m256i four_codes(const std::int8_t* codes) noexcept {
  std::int32_t four;
  std::memcpy(&four, codes, sizeof four);
  return _mm256_set1_epi32(four);
}

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

template <int kRows>
[[gnu::always_inline]] SABIYARN_KERNEL inline void add_nibbles(const std::byte* weights,
                                                               const std::int8_t* codes, std::int64_t stride,
                                                               __m256i* low_sums,
                                                               __m256i* high_sums) noexcept {
  const __m256i both = load(weights), low_half = _mm256_set1_epi8(15);
  const __m256i low = _mm256_and_si256(both, low_half);
  const __m256i high = _mm256_and_si256(_mm256_srli_epi16(both, 4), low_half);
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    low_sums[r] = dot_products(low_sums[r], low, four_codes(codes + r * stride));
    high_sums[r] = dot_products(high_sums[r], high, four_codes(codes + r * stride + 4));
  }
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

template <int kRows, bool kAhead>
[[gnu::always_inline]] SABIYARN_KERNEL inline void nibble_sums(const std::byte* weights,
                                                               const std::int8_t* codes, std::int64_t stride,
                                                               std::int64_t groups,
                                                               EightInts* sums) noexcept {
  constexpr int kChains = kNibbleChains<kRows>;
  __m256i low[std::size_t{kChains}][std::size_t{kRows}], high[std::size_t{kChains}][std::size_t{kRows}];
  SABIYARN_UNROLL
  for (int c = 0; c < kChains; ++c) {
    SABIYARN_UNROLL
    for (int r = 0; r < kRows; ++r) low[c][r] = high[c][r] = _mm256_setzero_si256();
  }
  for (std::int64_t g = 0; g + kChains <= groups; g += kChains) {
    SABIYARN_UNROLL
    for (int c = 0; c < kChains; ++c, weights += kGroupBytes, codes += 8) {
      prefetch<kAhead>(weights, kChains == 1 ? g : c);
      add_nibbles<kRows>(weights, codes, stride, low[c], high[c]);
    }
  }
  if (groups % kChains != 0) add_nibbles<kRows>(weights, codes, stride, low[0], high[0]);
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    __m256i total = _mm256_add_epi32(low[0][r], high[0][r]);
    SABIYARN_UNROLL
    for (int c = 1; c < kChains; ++c) {
      total = _mm256_add_epi32(total, _mm256_add_epi32(low[c][r], high[c][r]));
    }
    sums[r] = reinterpret_cast<EightInts>(total);
  }
}

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/linear_kernel.hpp"
