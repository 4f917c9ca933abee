// csrc/core/kernels/linear_i8mm.cpp - matrix products of bytes with Armv8.6's smmla: Cortex-A510, A710, X2, Neoverse V1,
// N2 and later, Apple since M2.
//
// smmla multiplies 2 rows with 2 outputs over 8 inputs. zip1 and zip2 of two groups give it the 8 inputs of two
// outputs, so the tiles are those of the dot products; round_row weaves the codes of its 2 rows.
#include "core/kernels/linear_sets.hpp"

#if defined(__aarch64__)

#include "core/simd/dispatched.hpp"

#define SABIYARN_KERNEL SABIYARN_DISPATCHED("arch=armv8.2-a+dotprod+i8mm")

#include "core/kernels/linear_sdot.hpp"

namespace sabiyarn {
namespace {

constexpr int kRowsAtOnce = 8;  // 16 sums, 4 registers of weights, 8 of codes: 28 of 32
constexpr int kRowsWoven = 2;

// Sums of two rows and two outputs in each register. Those of a neighbour that the last row lacks are left behind.
template <int kRows>
struct MatrixSums {
  static constexpr int kPairs = (kRows + 1) / 2;
  int32x4_t values[std::size_t{kPairs}][4];  // [pair of rows, pair of outputs]
};

template <int kRows>
[[gnu::always_inline]] SABIYARN_KERNEL inline void clear(MatrixSums<kRows>& sums) noexcept {
  SABIYARN_UNROLL
  for (int p = 0; p < sums.kPairs; ++p) {
    SABIYARN_UNROLL
    for (int o = 0; o < 4; ++o) sums.values[p][o] = vdupq_n_s32(0);
  }
}

// Eight inputs of pairs of outputs, from the fours of eight outputs.
SABIYARN_KERNEL inline void zip_outputs(const int8x16_t (&first)[2], const int8x16_t (&second)[2],
                                        int8x16_t (&eight)[4]) noexcept {
  SABIYARN_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int32x4_t a = vreinterpretq_s32_s8(first[half]), b = vreinterpretq_s32_s8(second[half]);
    eight[2 * half] = vreinterpretq_s8_s32(vzip1q_s32(a, b));
    eight[2 * half + 1] = vreinterpretq_s8_s32(vzip2q_s32(a, b));
  }
}

// Eight inputs of two rows and two outputs. GCC 12 gives the intrinsic's sums new registers, copies and spills them: a
// tenth of the loop.
SABIYARN_KERNEL inline void add_eight(int32x4_t& sum, int8x16_t rows, int8x16_t outputs) noexcept {
#if defined(__clang__)
  sum = vmmlaq_s32(sum, rows, outputs);
#else
  asm("smmla %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(rows), "w"(outputs));
#endif
}

template <int kRows>
[[gnu::always_inline]] SABIYARN_KERNEL inline void finish(
    const MatrixSums<kRows>& sums, EightInts (&result)[std::size_t{kRows}][1]) noexcept {
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    int64x2_t pairs[4];
    SABIYARN_UNROLL
    for (int o = 0; o < 4; ++o) pairs[o] = vreinterpretq_s64_s32(sums.values[r / 2][o]);
    const bool even = r % 2 == 0;
    result[r][0] = {
        vreinterpretq_s32_s64(even ? vzip1q_s64(pairs[0], pairs[1]) : vzip2q_s64(pairs[0], pairs[1])),
        vreinterpretq_s32_s64(even ? vzip1q_s64(pairs[2], pairs[3]) : vzip2q_s64(pairs[2], pairs[3]))};
  }
}

template <int kRows, int kTiles>
[[gnu::always_inline]] SABIYARN_KERNEL inline void byte_sums(
    const std::byte* weights, std::ptrdiff_t, const ActivationBlock& rows,
    EightInts (&result)[std::size_t{kRows}][std::size_t{kTiles}]) noexcept {
  if constexpr (kRows == 1) {
    sdot_byte_sums<1>(weights, rows, result);
  } else {
    MatrixSums<kRows> sums;
    clear(sums);
    for (std::int64_t k = 0; k < rows.inputs; k += 16) {
      int8x16_t pairs[std::size_t{sums.kPairs}][2];  // [pair of rows, eight inputs]
      SABIYARN_UNROLL
      for (int p = 0; p < sums.kPairs; ++p) load_two(rows.codes + 2 * (p * rows.code_stride + k), pairs[p]);
      SABIYARN_UNROLL
      for (int e = 0; e < 2; ++e, weights += 2 * kGroupBytes) {
        __builtin_prefetch(weights + kPrefetch);
        int8x16_t first[2], second[2], w[4];
        load_two(weights, first);
        load_two(weights + kGroupBytes, second);
        zip_outputs(first, second, w);
        SABIYARN_UNROLL
        for (int p = 0; p < sums.kPairs; ++p) {
          SABIYARN_UNROLL
          for (int o = 0; o < 4; ++o) add_eight(sums.values[p][o], pairs[p][e], w[o]);
        }
        asm volatile("" ::: "memory");  // the next weights are loaded when these have left their registers
      }
    }
    finish(sums, result);
  }
}

template <int kRows, int kTiles>
[[gnu::always_inline]] SABIYARN_KERNEL inline void nibble_sums(
    const std::byte* block, std::ptrdiff_t, const ActivationBlock& rows,
    EightInts (&result)[std::size_t{kRows}][std::size_t{kTiles}]) noexcept {
  if constexpr (kRows == 1) {
    sdot_nibble_sums<1>(block, rows, result);
  } else {
    const auto* scales = reinterpret_cast<const std::int8_t*>(block);
    const std::byte* weights = block + kTileOutputs * (rows.inputs / kSubBlock);
    const int8x16_t table = vld1q_s8(kFourBitTable);
    MatrixSums<kRows> total;
    clear(total);
    for (std::int64_t k = 0; k < rows.inputs; k += kSubBlock, scales += kTileOutputs) {
      __builtin_prefetch(weights + kPrefetch);
      int8x16_t w[2][4];
      SABIYARN_UNROLL
      for (int e = 0; e < 2; ++e, weights += kGroupBytes) {
        int8x16_t first[2], second[2];
        load_nibbles(weights, table, first, second);
        zip_outputs(first, second, w[e]);
      }
      const int16x8_t scale = vmovl_s8(vld1_s8(scales));
      const int64x2_t low = vreinterpretq_s64_s32(vmovl_s16(vget_low_s16(scale))),
                      high = vreinterpretq_s64_s32(vmovl_high_s16(scale));
      const int64x2_t factors[4] = {vzip1q_s64(low, low), vzip2q_s64(low, low), vzip1q_s64(high, high),
                                    vzip2q_s64(high, high)};
      SABIYARN_UNROLL
      for (int p = 0; p < total.kPairs; ++p) {
        int8x16_t pair[2];
        load_two(rows.codes + 2 * (p * rows.code_stride + k), pair);
        SABIYARN_UNROLL
        for (int o = 0; o < 4; ++o) {
          int32x4_t sum = vdupq_n_s32(0);
          add_eight(sum, pair[0], w[0][o]);
          add_eight(sum, pair[1], w[1][o]);
          total.values[p][o] = vmlaq_s32(total.values[p][o], sum, vreinterpretq_s32_s64(factors[o]));
        }
      }
    }
    finish(total, result);
  }
}

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/linear_kernel.hpp"

namespace sabiyarn {
const LinearKernels kLinearI8mm = {"i8mm", normalize, round_row, multiply, multiply_floats_plain};
}  // namespace sabiyarn

#endif
