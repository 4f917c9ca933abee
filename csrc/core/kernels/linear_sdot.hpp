// csrc/core/kernels/linear_sdot.hpp - the sums of one block with Armv8.2's dot products.
//
// Included behind the definition of SABIYARN_KERNEL by the sets that have them.
#pragma once

#include <arm_neon.h>

#include "core/kernels/quantized_activations.hpp"
#include "core/kernels/tiled_matrix.hpp"
#include "core/simd/lane_pairs.hpp"

namespace sabiyarn {
namespace {

using Eight = FloatPair;
using EightInts = IntPair;

constexpr std::ptrdiff_t kPrefetch = 1024;  // bytes ahead of what is read
constexpr int kTilesAtOnce = 1;             // a tile takes two of the 32 registers for the sums of each row

// With few rows two sums for each register of outputs, so that no dot product waits for the one before it.
template <int kRows>
constexpr int kChains = kRows <= 4 ? 2 : 1;

template <int kRows>
struct DotSums {
  int32x4_t values[std::size_t{kRows}][2]
                  [std::size_t{kChains<kRows>}];  // [row, outputs 0 ... 3 and 4 ... 7, chain]
};

template <int kRows>
[[gnu::always_inline]] SABIYARN_KERNEL inline void clear(DotSums<kRows>& sums) noexcept {
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    SABIYARN_UNROLL
    for (int half = 0; half < 2; ++half) {
      sums.values[r][half][0] = vdupq_n_s32(0);
      sums.values[r][half][kChains<kRows> - 1] = vdupq_n_s32(0);
    }
  }
}

// 32 bytes that lie side by side.
template <typename Byte>
[[gnu::always_inline]] SABIYARN_KERNEL inline void load_two(const Byte* source,
                                                            int8x16_t (&registers)[2]) noexcept {
  const auto* bytes = reinterpret_cast<const std::int8_t*>(source);
  registers[0] = vld1q_s8(bytes);
  registers[1] = vld1q_s8(bytes + 16);
  // No instruction, but it needs both: they stay side by side and become one ldp. GCC 12 copies what vld1q_s8_x2 loads.
  asm("" : "+w"(registers[0]), "+w"(registers[1]));
}

// Sixteen inputs of one row.
template <int kChains>
[[gnu::always_inline]] SABIYARN_KERNEL inline void add_sixteen(int32x4_t (&sums)[2][std::size_t{kChains}],
                                                               const int8x16_t (&w)[4][2],
                                                               int8x16_t sixteen) noexcept {
  SABIYARN_UNROLL
  for (int half = 0; half < 2; ++half) {
    int32x4_t &first = sums[half][0], &second = sums[half][kChains - 1];
    first = vdotq_laneq_s32(first, w[0][half], sixteen, 0);
    second = vdotq_laneq_s32(second, w[1][half], sixteen, 1);
    first = vdotq_laneq_s32(first, w[2][half], sixteen, 2);
    second = vdotq_laneq_s32(second, w[3][half], sixteen, 3);
  }
}

// 16 * kSixteens inputs of all rows.
template <int kRows, int kSixteens>
[[gnu::always_inline]] SABIYARN_KERNEL inline void add_sixteens(DotSums<kRows>& sums,
                                                                const std::byte* weights,
                                                                const std::int8_t* codes,
                                                                std::int64_t stride) noexcept {
  SABIYARN_UNROLL
  for (int s = 0; s < kSixteens; ++s, weights += 4 * kGroupBytes, codes += 16) {
    __builtin_prefetch(weights + kPrefetch);
    __builtin_prefetch(weights + kPrefetch + 64);
    int8x16_t w[4][2];
    SABIYARN_UNROLL
    for (int g = 0; g < 4; ++g) load_two(weights + static_cast<std::size_t>(g) * kGroupBytes, w[g]);
    SABIYARN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      add_sixteen<kChains<kRows>>(sums.values[r], w, vld1q_s8(codes + r * stride));
    }
  }
}

template <int kRows>
[[gnu::always_inline]] SABIYARN_KERNEL inline void finish(
    const DotSums<kRows>& sums, EightInts (&result)[std::size_t{kRows}][1]) noexcept {
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const auto& [low, high] = sums.values[r];
    if constexpr (kChains<kRows> == 2) {
      result[r][0] = {vaddq_s32(low[0], low[1]), vaddq_s32(high[0], high[1])};
    } else {
      result[r][0] = {low[0], high[0]};
    }
  }
}

// Eight inputs of eight outputs: the low halves are the first four inputs.
SABIYARN_KERNEL inline void load_nibbles(const std::byte* weights, int8x16_t table, int8x16_t (&first)[2],
                                         int8x16_t (&second)[2]) noexcept {
  const auto* w = reinterpret_cast<const std::uint8_t*>(weights);
  SABIYARN_UNROLL
  for (int half = 0; half < 2; ++half) {
    const uint8x16_t both = vld1q_u8(w + 16 * half);
    first[half] = vqtbl1q_s8(table, vandq_u8(both, vdupq_n_u8(15)));
    second[half] = vqtbl1q_s8(table, vshrq_n_u8(both, 4));
  }
}

template <int kRows>
[[gnu::always_inline]] SABIYARN_KERNEL inline void sdot_byte_sums(
    const std::byte* weights, const ActivationBlock& rows,
    EightInts (&result)[std::size_t{kRows}][1]) noexcept {
  constexpr int kAtOnce = kRows == 1 ? 2 : 1;
  DotSums<kRows> sums;
  clear(sums);
  std::int64_t k = 0;
  for (; k <= rows.inputs - 16 * kAtOnce; k += 16 * kAtOnce) {
    add_sixteens<kRows, kAtOnce>(sums, weights + k * kTileOutputs, rows.codes + k, rows.code_stride);
  }
  if (kAtOnce == 2 && k < rows.inputs) {
    add_sixteens<kRows, 1>(sums, weights + k * kTileOutputs, rows.codes + k, rows.code_stride);
  }
  finish(sums, result);
}

template <int kRows>
[[gnu::always_inline]] SABIYARN_KERNEL inline void sdot_nibble_sums(
    const std::byte* block, const ActivationBlock& rows,
    EightInts (&result)[std::size_t{kRows}][1]) noexcept {
  const auto* scales = reinterpret_cast<const std::int8_t*>(block);
  const std::byte* weights = block + kTileOutputs * (rows.inputs / kSubBlock);
  const int8x16_t table = vld1q_s8(kFourBitTable);
  int32x4_t total[std::size_t{kRows}][2];
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) total[r][0] = total[r][1] = vdupq_n_s32(0);
  const std::int8_t* codes = rows.codes;
  for (std::int64_t k = 0; k < rows.inputs; k += kSubBlock, codes += kSubBlock, scales += kTileOutputs) {
    __builtin_prefetch(weights + kPrefetch);
    int8x16_t w[4][2];
    load_nibbles(weights, table, w[0], w[1]);
    load_nibbles(weights + kGroupBytes, table, w[2], w[3]);
    weights += 2 * kGroupBytes;
    const int16x8_t scale = vmovl_s8(vld1_s8(scales));
    const int32x4_t factors[2] = {vmovl_s16(vget_low_s16(scale)), vmovl_high_s16(scale)};
    SABIYARN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int8x16_t sixteen = vld1q_s8(codes + r * rows.code_stride);
      SABIYARN_UNROLL
      for (int half = 0; half < 2; ++half) {
        int32x4_t sum = vdotq_laneq_s32(vdupq_n_s32(0), w[0][half], sixteen, 0);
        sum = vdotq_laneq_s32(sum, w[1][half], sixteen, 1);
        sum = vdotq_laneq_s32(sum, w[2][half], sixteen, 2);
        sum = vdotq_laneq_s32(sum, w[3][half], sixteen, 3);
        total[r][half] = vmlaq_s32(total[r][half], sum, factors[half]);
      }
    }
  }
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) result[r][0] = {total[r][0], total[r][1]};
}

}  // namespace
}  // namespace sabiyarn
