// csrc/core/kernels/linear_four_bits_x86.hpp - products of 4-bit weights with 256-bit registers, the same with and
// without VNNI: a dot product instruction adds to 32 bits, which would have to be multiplied by the scales in 32 bits.
//
// Included behind the definitions of SABIYARN_KERNEL, the attributes of every function here (AVX2 or more), EightInts and
// kPrefetch.
#pragma once

#include <immintrin.h>

#include <cstring>

#include "core/kernels/quantized_activations.hpp"
#include "core/kernels/tiled_matrix.hpp"
#include "core/simd/lane_eights.hpp"

namespace sabiyarn {
namespace {

SABIYARN_KERNEL inline __m256i broadcast_four(const void* bytes) noexcept {
  std::int32_t four;
  std::memcpy(&four, bytes, sizeof four);
  return _mm256_set1_epi32(four);
}

// The four-bit weights of 16 inputs, ready to be multiplied.
struct SubBlock {
  __m256i entries[4];  // of kFourBitTable plus 32, four inputs each
  __m256i scales;      // each output's twice, in 16 bits
};

SABIYARN_KERNEL inline SubBlock load_sub_block(const std::byte* scales, const std::byte* codes) noexcept {
  const __m128i signed_entries = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kFourBitTable));
  const __m256i table = _mm256_broadcastsi128_si256(_mm_add_epi8(signed_entries, _mm_set1_epi8(32)));
  const __m256i low_half = _mm256_set1_epi8(15);
  SubBlock result;
  SABIYARN_UNROLL
  for (int g = 0; g < 2; ++g) {
    const auto* group = reinterpret_cast<const __m256i*>(codes + static_cast<std::size_t>(g) * kGroupBytes);
    const __m256i both = _mm256_loadu_si256(group);
    const __m256i high = _mm256_srli_epi16(both, 4);
    result.entries[2 * g] = _mm256_shuffle_epi8(table, _mm256_and_si256(both, low_half));
    result.entries[2 * g + 1] = _mm256_shuffle_epi8(table, _mm256_and_si256(high, low_half));
  }
  std::int64_t eight;
  std::memcpy(&eight, scales, sizeof eight);
  // Each scale becomes the upper byte of its two, and is shifted down with its sign.
  const __m256i places = _mm256_setr_epi8(-1, 0, -1, 0, -1, 1, -1, 1, -1, 2, -1, 2, -1, 3, -1, 3,  //
                                          -1, 4, -1, 4, -1, 5, -1, 5, -1, 6, -1, 6, -1, 7, -1, 7);
  result.scales = _mm256_srai_epi16(_mm256_shuffle_epi8(_mm256_set1_epi64x(eight), places), 8);
  return result;
}

// Sums of 8 products in 16 bits may wrap on the way: with the correction they are at most 8 * 31 * 127 again.
template <int kRows>
[[gnu::always_inline]] SABIYARN_KERNEL inline void add_tile_nibbles(const std::byte* block,
                                                                    const ActivationBlock& rows,
                                                                    __m256i* total) noexcept {
  const std::byte* scales = block;
  const std::byte* weights = block + kTileOutputs * (rows.inputs / kSubBlock);
  const std::int8_t* codes = rows.codes;
  const std::int16_t* corrections = rows.corrections;
  for (std::int64_t k = 0; k < rows.inputs; k += kSubBlock) {
    _mm_prefetch(reinterpret_cast<const char*>(weights) + kPrefetch, _MM_HINT_T0);
    const SubBlock sub_block = load_sub_block(scales, weights);
    SABIYARN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const std::int8_t* row = codes + r * rows.code_stride;
      __m256i pairs = broadcast_four(corrections + r * rows.correction_stride);
      SABIYARN_UNROLL
      for (int i = 0; i < 4; ++i) {
        pairs =
            _mm256_add_epi16(pairs, _mm256_maddubs_epi16(sub_block.entries[i], broadcast_four(row + 4 * i)));
      }
      total[r] = _mm256_add_epi32(total[r], _mm256_madd_epi16(pairs, sub_block.scales));
    }
    scales += kTileOutputs;
    weights += 2 * kGroupBytes;
    codes += kSubBlock;
    corrections += 2;
  }
}

template <int kRows, int kTiles>
[[gnu::always_inline]] SABIYARN_KERNEL inline void nibble_sums(
    const std::byte* block, std::ptrdiff_t tile_stride, const ActivationBlock& rows,
    EightInts (&sums)[std::size_t{kRows}][std::size_t{kTiles}]) noexcept {
  SABIYARN_UNROLL
  for (int t = 0; t < kTiles; ++t, block += tile_stride) {
    __m256i total[std::size_t{kRows}];
    SABIYARN_UNROLL
    for (int r = 0; r < kRows; ++r) total[r] = _mm256_setzero_si256();
    add_tile_nibbles<kRows>(block, rows, total);
    SABIYARN_UNROLL
    for (int r = 0; r < kRows; ++r) sums[r][t] = reinterpret_cast<EightInts>(total[r]);
  }
}

}  // namespace
}  // namespace sabiyarn
