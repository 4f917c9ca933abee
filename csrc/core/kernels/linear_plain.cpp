// csrc/core/kernels/linear_plain.cpp - products of bytes for any CPU; on ARM with what armv8-a has.
#include "core/kernels/linear_sets.hpp"
#include "core/simd/lane_pairs.hpp"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#define SABIYARN_KERNEL

namespace sabiyarn {
namespace {

using Eight = FloatPair;
using EightInts = IntPair;

#if defined(__aarch64__)

constexpr std::ptrdiff_t kPrefetch = 1024;  // bytes ahead of what is read
constexpr int kRowsAtOnce = 4, kRowsWoven = 1, kTilesAtOnce = 1;

// The codes of four inputs, for each of four outputs.
inline int8x16_t four_codes(const std::int8_t* codes) noexcept {
  std::int32_t four;
  std::memcpy(&four, codes, sizeof four);
  return vreinterpretq_s8_s32(vdupq_n_s32(four));
}

// Products of two groups are added in 16 bits, which hold 2 * 127 * 127. A block has a multiple of eight
// inputs, so an even number of groups.
template <int kRows, int kTiles>
[[gnu::always_inline]] inline void byte_sums(
    const std::byte* weights, std::ptrdiff_t, const ActivationBlock& rows,
    EightInts (&sums)[std::size_t{kRows}][std::size_t{kTiles}]) noexcept {
  const auto* w = reinterpret_cast<const std::int8_t*>(weights);
  int32x4_t total[std::size_t{kRows}]
                 [4];  // of two outputs each: the first's inputs 0 and 1, its 2 and 3, the second's
  for (auto& row : total) {
    for (auto& outputs : row) outputs = vdupq_n_s32(0);
  }
  const std::int8_t* codes = rows.codes;
  for (std::int64_t k = 0; k < rows.inputs; k += 8, w += 2 * kGroupBytes, codes += 8) {
    __builtin_prefetch(w + kPrefetch);
    const int8x16_t first[2] = {vld1q_s8(w), vld1q_s8(w + 16)};
    const int8x16_t second[2] = {vld1q_s8(w + 32), vld1q_s8(w + 48)};
    SABIYARN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const int8x16_t a = four_codes(codes + r * rows.code_stride),
                      b = four_codes(codes + r * rows.code_stride + 4);
      SABIYARN_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int16x8_t low = vmlal_s8(vmull_s8(vget_low_s8(first[half]), vget_low_s8(a)),
                                       vget_low_s8(second[half]), vget_low_s8(b));
        const int16x8_t high = vmlal_high_s8(vmull_high_s8(first[half], a), second[half], b);
        total[r][2 * half] = vpadalq_s16(total[r][2 * half], low);
        total[r][2 * half + 1] = vpadalq_s16(total[r][2 * half + 1], high);
      }
    }
  }
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    sums[r][0] = {vpaddq_s32(total[r][0], total[r][1]), vpaddq_s32(total[r][2], total[r][3])};
  }
}

// A product of an entry with a code is at most 31 * 127: 16 bits hold the eight that two neighbours have of 16 inputs.
template <int kRows, int kTiles>
[[gnu::always_inline]] inline void nibble_sums(
    const std::byte* block, std::ptrdiff_t, const ActivationBlock& rows,
    EightInts (&sums)[std::size_t{kRows}][std::size_t{kTiles}]) noexcept {
  const std::int8_t* codes = rows.codes;
  const std::int64_t stride = rows.code_stride, sub_blocks = rows.inputs / kSubBlock;
  const auto* scales = reinterpret_cast<const std::int8_t*>(block);
  const auto* w = reinterpret_cast<const std::uint8_t*>(block + kTileOutputs * sub_blocks);
  const uint8x16_t low_half = vdupq_n_u8(15);
  const int8x16_t table = vld1q_s8(kFourBitTable);
  int32x4_t total[std::size_t{kRows}][2];
  for (auto& row : total) row[0] = row[1] = vdupq_n_s32(0);
  for (std::int64_t j = 0; j < sub_blocks; ++j, scales += kTileOutputs, codes += kSubBlock) {
    __builtin_prefetch(w + kPrefetch);
    const int16x8_t scale = vmovl_s8(vld1_s8(scales));
    int16x8_t products[std::size_t{kRows}][4];  // of two outputs each
    for (auto& row : products) {
      for (auto& outputs : row) outputs = vdupq_n_s16(0);
    }
    SABIYARN_UNROLL
    for (int g = 0; g < 2; ++g, w += kGroupBytes) {
      SABIYARN_UNROLL
      for (int half = 0; half < 2; ++half) {
        const uint8x16_t both = vld1q_u8(w + 16 * half);
        const int8x16_t low = vqtbl1q_s8(table, vandq_u8(both, low_half));
        const int8x16_t high = vqtbl1q_s8(table, vshrq_n_u8(both, 4));
        SABIYARN_UNROLL
        for (int r = 0; r < kRows; ++r) {
          const std::int8_t* eight = codes + r * stride + 8 * g;
          const int8x16_t a = four_codes(eight), b = four_codes(eight + 4);
          int16x8_t(&sum)[4] = products[r];
          sum[2 * half] = vmlal_s8(sum[2 * half], vget_low_s8(low), vget_low_s8(a));
          sum[2 * half + 1] = vmlal_high_s8(sum[2 * half + 1], low, a);
          sum[2 * half] = vmlal_s8(sum[2 * half], vget_low_s8(high), vget_low_s8(b));
          sum[2 * half + 1] = vmlal_high_s8(sum[2 * half + 1], high, b);
        }
      }
    }
    const int32x4_t factors[2] = {vmovl_s16(vget_low_s16(scale)), vmovl_high_s16(scale)};
    SABIYARN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      SABIYARN_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int16x8_t pairs = vpaddq_s16(products[r][2 * half], products[r][2 * half + 1]);
        total[r][half] = vmlaq_s32(total[r][half], vpaddlq_s16(pairs), factors[half]);
      }
    }
  }
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) sums[r][0] = {total[r][0], total[r][1]};
}

#else

constexpr std::ptrdiff_t kPrefetch = 0;
constexpr int kRowsAtOnce = 4, kRowsWoven = 1, kTilesAtOnce = 1;

template <int kRows, int kTiles>
[[gnu::always_inline]] inline void byte_sums(
    const std::byte* weights, std::ptrdiff_t, const ActivationBlock& rows,
    EightInts (&sums)[std::size_t{kRows}][std::size_t{kTiles}]) noexcept {
  const auto* w = reinterpret_cast<const std::int8_t*>(weights);
  for (int r = 0; r < kRows; ++r) {
    std::int32_t total[kTileOutputs] = {};
    for (std::int64_t g = 0; g < rows.inputs / 4; ++g) {
      const std::int8_t* a = rows.codes + r * rows.code_stride + 4 * g;
      for (std::int64_t i = 0; i < 32; ++i) total[i / 4] += w[32 * g + i] * a[i % 4];
    }
    std::memcpy(sums + r, total, sizeof total);
  }
}

template <int kRows, int kTiles>
[[gnu::always_inline]] inline void nibble_sums(
    const std::byte* block, std::ptrdiff_t, const ActivationBlock& rows,
    EightInts (&sums)[std::size_t{kRows}][std::size_t{kTiles}]) noexcept {
  const std::int8_t* codes = rows.codes;
  const std::int64_t stride = rows.code_stride, sub_blocks = rows.inputs / kSubBlock;
  const auto* scales = reinterpret_cast<const std::int8_t*>(block);
  const auto* w = reinterpret_cast<const std::uint8_t*>(block + kTileOutputs * sub_blocks);
  for (int r = 0; r < kRows; ++r) {
    std::int32_t total[kTileOutputs] = {};
    for (std::int64_t j = 0; j < sub_blocks; ++j) {
      std::int32_t sum[kTileOutputs] = {};
      for (std::int64_t g = 2 * j; g < 2 * j + 2; ++g) {
        const std::int8_t* a = codes + r * stride + 8 * g;
        for (std::int64_t i = 0; i < 32; ++i) {
          const int both = w[32 * g + i];
          sum[i / 4] += kFourBitTable[both & 15] * a[i % 4] + kFourBitTable[both >> 4] * a[i % 4 + 4];
        }
      }
      for (std::int64_t n = 0; n < kTileOutputs; ++n) total[n] += scales[kTileOutputs * j + n] * sum[n];
    }
    std::memcpy(sums + r, total, sizeof total);
  }
}

#endif

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/linear_kernel.hpp"

namespace sabiyarn {
const LinearKernels kLinearPlain = {"plain", normalize, round_row, multiply, multiply_floats_plain};
}  // namespace sabiyarn
