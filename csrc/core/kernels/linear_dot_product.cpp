// csrc/core/kernels/linear_dot_product.cpp - products of bytes with Armv8.2's dot products: Cortex-A55, A76 (Pi 5)
// and later.
#include "core/kernels/linear_sets.hpp"
#include "core/simd/lane_pairs.hpp"

#if defined(__aarch64__)

#include <arm_neon.h>

#include "core/simd/dispatched.hpp"

#define SABIYARN_KERNEL SABIYARN_DISPATCHED("arch=armv8.2-a+dotprod")

namespace sabiyarn {
namespace {

using Eight = FloatPair;
using EightInts = IntPair;

constexpr std::ptrdiff_t kPrefetch = 1024;  // bytes ahead of what is read

// Two sums for each register of outputs, so that no dot product waits for the one before it.
template <int kRows>
struct DotSums {
  int32x4_t values[std::size_t{kRows}][2]
                  [2];  // [row, outputs 0 ... 3 and 4 ... 7, inputs 0 ... 3 and 4 ... 7 of eight]
};

template <int kRows>
[[gnu::always_inline]] SABIYARN_KERNEL inline void clear(DotSums<kRows>& sums) noexcept {
  for (auto& row : sums.values) {
    for (auto& outputs : row) outputs[0] = outputs[1] = vdupq_n_s32(0);
  }
}

// Eight inputs: `first` and `second` hold four of each output.
template <int kRows>
[[gnu::always_inline]] SABIYARN_KERNEL inline void add(DotSums<kRows>& sums, const int8x16_t (&first)[2],
                                                       const int8x16_t (&second)[2], const std::int8_t* codes,
                                                       std::int64_t stride) noexcept {
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    const int8x8_t eight = vld1_s8(codes + r * stride);
    SABIYARN_UNROLL
    for (int half = 0; half < 2; ++half) {
      int32x4_t(&sum)[2] = sums.values[r][half];
      sum[0] = vdotq_lane_s32(sum[0], first[half], eight, 0);
      sum[1] = vdotq_lane_s32(sum[1], second[half], eight, 1);
    }
  }
}

template <int kRows>
[[gnu::always_inline]] SABIYARN_KERNEL inline void finish(const DotSums<kRows>& sums,
                                                          EightInts* result) noexcept {
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    result[r].low = vaddq_s32(sums.values[r][0][0], sums.values[r][0][1]);
    result[r].high = vaddq_s32(sums.values[r][1][0], sums.values[r][1][1]);
  }
}

// A block has a multiple of eight inputs, so an even number of groups.
template <int kRows, bool kAhead>
[[gnu::always_inline]] SABIYARN_KERNEL inline void byte_sums(const std::byte* weights,
                                                             const std::int8_t* codes, std::int64_t stride,
                                                             const std::int32_t*, std::int64_t,
                                                             std::int64_t groups,
                                                             EightInts* result) noexcept {
  const auto* w = reinterpret_cast<const std::int8_t*>(weights);
  DotSums<kRows> sums;
  clear(sums);
  for (std::int64_t g = 0; g < groups; g += 2, w += 2 * kGroupBytes, codes += 8) {
    if constexpr (kAhead) __builtin_prefetch(w + kPrefetch);
    const int8x16_t first[2] = {vld1q_s8(w), vld1q_s8(w + 16)};
    const int8x16_t second[2] = {vld1q_s8(w + 32), vld1q_s8(w + 48)};
    add(sums, first, second, codes, stride);
  }
  finish(sums, result);
}

template <int kRows, bool kAhead>
[[gnu::always_inline]] SABIYARN_KERNEL inline void nibble_sums(const std::byte* block,
                                                               const std::int8_t* codes, std::int64_t stride,
                                                               const std::int16_t*, std::int64_t,
                                                               std::int64_t sub_blocks,
                                                               EightInts* result) noexcept {
  const auto* scales = reinterpret_cast<const std::int8_t*>(block);
  const auto* w = reinterpret_cast<const std::uint8_t*>(block + kTileOutputs * sub_blocks);
  const uint8x16_t low_half = vdupq_n_u8(15);
  const int8x16_t table = vld1q_s8(kFourBitTable);
  int32x4_t total[std::size_t{kRows}][2];
  for (auto& row : total) row[0] = row[1] = vdupq_n_s32(0);
  for (std::int64_t j = 0; j < sub_blocks; ++j, scales += kTileOutputs, codes += kSubBlock) {
    if constexpr (kAhead) __builtin_prefetch(w + kPrefetch);
    DotSums<kRows> sums;
    clear(sums);
    SABIYARN_UNROLL
    for (int g = 0; g < 2; ++g, w += kGroupBytes) {
      int8x16_t low[2], high[2];
      SABIYARN_UNROLL
      for (int half = 0; half < 2; ++half) {
        const uint8x16_t both = vld1q_u8(w + 16 * half);
        low[half] = vqtbl1q_s8(table, vandq_u8(both, low_half));
        high[half] = vqtbl1q_s8(table, vshrq_n_u8(both, 4));
      }
      add(sums, low, high, codes + 8 * g, stride);
    }
    const int16x8_t scale = vmovl_s8(vld1_s8(scales));
    const int32x4_t factors[2] = {vmovl_s16(vget_low_s16(scale)), vmovl_high_s16(scale)};
    SABIYARN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      SABIYARN_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int32x4_t sum = vaddq_s32(sums.values[r][half][0], sums.values[r][half][1]);
        total[r][half] = vmlaq_s32(total[r][half], sum, factors[half]);
      }
    }
  }
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) result[r] = {total[r][0], total[r][1]};
}

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/linear_kernel.hpp"

namespace sabiyarn {
const LinearKernels kLinearDotProduct = {"dot_product", normalize, round_row, multiply,
                                         multiply_floats_plain};
}  // namespace sabiyarn

#endif
