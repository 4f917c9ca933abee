// csrc/core/kernels/linear_vnni.hpp - dot products of bytes with VNNI, which multiplies unsigned by signed ones.
//
// Included behind the definitions of
//   SABIYARN_KERNEL  attributes of every function here: the instruction set
//   kRowsAtOnce      rows whose sums for a pair of tiles fit into the registers
//   dot_products(sums, unsigned_bytes, signed_bytes)
//                    adds four products to each of eight sums
//   SABIYARN_WIDE_PAIR and Pair
//                    one register for two tiles, with the functions of linear_vnni_pair.hpp, instead of its two
// by linear_avx_vnni.cpp and linear_avx512_vnni.cpp, and by a test that brings its own dot products.
//
// Weights are biased by +128, a change of their highest bit: sums begin with -128 * sum(codes).
#pragma once

#include <immintrin.h>

#include <cstring>

#include "core/kernels/quantized_activations.hpp"
#include "core/kernels/tiled_matrix.hpp"
#include "core/simd/lane_eights.hpp"
#if !defined(SABIYARN_WIDE_PAIR)
#include "core/kernels/linear_vnni_pair.hpp"
#endif

namespace sabiyarn {
namespace {

using Eight = Floats8;
using EightInts = Ints8;

constexpr int kRowsWoven = 1, kTilesAtOnce = 2;

// Bytes ahead of what is read: the time of one access to memory, and no more than the next tile.
constexpr std::ptrdiff_t kPrefetch = 1024;

// A dot product ends four or five cycles after it began, so those that follow each other need sums of their own.
constexpr int kChainsOfOneRow = 4;
template <int kRows>
constexpr int kChains = kRows <= 3 ? 2 : 1;

SABIYARN_KERNEL inline __m256i load(const std::byte* source) noexcept {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(source));
}

SABIYARN_KERNEL inline std::int32_t four_codes(const std::int8_t* codes) noexcept {
  std::int32_t four;
  std::memcpy(&four, codes, sizeof four);
  return four;
}

SABIYARN_KERNEL inline void prefetch(const std::byte* weights) noexcept {
  _mm_prefetch(reinterpret_cast<const char*>(weights) + kPrefetch, _MM_HINT_T0);
}

// Of one row, the sums of eight outputs.
SABIYARN_KERNEL inline __m256i sum_of_chains(const __m256i (&sums)[kChainsOfOneRow]) noexcept {
  return _mm256_add_epi32(_mm256_add_epi32(sums[0], sums[1]), _mm256_add_epi32(sums[2], sums[3]));
}

SABIYARN_KERNEL inline __m256i row_byte_sums(const std::byte* weights, const ActivationBlock& row) noexcept {
  const __m256i bias = _mm256_set1_epi8(-128);
  __m256i sums[kChainsOfOneRow] = {_mm256_set1_epi32(-128 * *row.sum)};
  SABIYARN_UNROLL
  for (int c = 1; c < kChainsOfOneRow; ++c) sums[c] = _mm256_setzero_si256();
  const std::int8_t* codes = row.codes;
  std::int64_t groups = row.inputs / 4;
  for (; groups >= kChainsOfOneRow; groups -= kChainsOfOneRow) {
    SABIYARN_UNROLL
    for (int c = 0; c < kChainsOfOneRow; ++c, weights += kGroupBytes, codes += 4) {
      if (c % 2 == 0) prefetch(weights);
      dot_products(sums[c], _mm256_xor_si256(load(weights), bias), _mm256_set1_epi32(four_codes(codes)));
    }
  }
  for (; groups > 0; --groups, weights += kGroupBytes, codes += 4) {
    dot_products(sums[0], _mm256_xor_si256(load(weights), bias), _mm256_set1_epi32(four_codes(codes)));
  }
  return sum_of_chains(sums);
}

// Of several rows, the sums of a pair of tiles; `chain` is the one of the next four inputs.
template <int kRows>
struct PairSums {
  Pair of[std::size_t{kChains<kRows>}][std::size_t{kRows}];
};

template <int kRows>
[[gnu::always_inline]] SABIYARN_KERNEL inline void add_group(PairSums<kRows>& sums, int chain,
                                                             const Pair& weights, const std::int8_t* codes,
                                                             std::int64_t stride) noexcept {
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    dot_products(sums.of[chain % kChains<kRows>][r], weights, four_codes(codes + r * stride));
  }
}

template <int kRows, int kTiles>
[[gnu::always_inline]] SABIYARN_KERNEL inline void finish(
    const PairSums<kRows>& sums, EightInts (&result)[std::size_t{kRows}][std::size_t{kTiles}]) noexcept {
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    Pair total = sums.of[0][r];
    if constexpr (kChains<kRows> == 2) total = add_pairs(total, sums.of[1][r]);
    result[r][0] = reinterpret_cast<EightInts>(first_of(total));
    result[r][1] = reinterpret_cast<EightInts>(second_of(total));
  }
}

template <int kRows, int kTiles>
[[gnu::always_inline]] SABIYARN_KERNEL inline void byte_sums(
    const std::byte* weights, std::ptrdiff_t tile_stride, const ActivationBlock& rows,
    EightInts (&result)[std::size_t{kRows}][std::size_t{kTiles}]) noexcept {
  if constexpr (kTiles == 1) {
    result[0][0] = reinterpret_cast<EightInts>(row_byte_sums(weights, rows));
  } else {
    PairSums<kRows> sums;
    SABIYARN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      sums.of[0][r] = broadcast_pair(-128 * rows.sum[r * rows.sum_stride]);
      if constexpr (kChains<kRows> == 2) sums.of[1][r] = broadcast_pair(0);
    }
    const std::int8_t* codes = rows.codes;
    for (std::int64_t k = 0; k < rows.inputs; k += 8, codes += 8, weights += 2 * kGroupBytes) {
      prefetch(weights);
      prefetch(weights + tile_stride);
      add_group<kRows>(sums, 0, biased(load_pair(weights, tile_stride)), codes, rows.code_stride);
      add_group<kRows>(sums, 1, biased(load_pair(weights + kGroupBytes, tile_stride)), codes + 4,
                       rows.code_stride);
    }
    finish<kRows, kTiles>(sums, result);
  }
}

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/linear_four_bits_x86.hpp"
#include "core/kernels/linear_kernel.hpp"
