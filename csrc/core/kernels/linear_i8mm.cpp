// csrc/core/kernels/linear_i8mm.cpp - matrix products of bytes with Armv8.6's smmla: Cortex-A510, A710, X2, Neoverse V1,
// N2 and later, Apple since M2.
//
// smmla multiplies 2 rows with 2 outputs over 8 inputs. zip1 and zip2 of two groups give it the 8 inputs of two
// outputs, so the tiles are those of the dot products.
#include "core/kernels/linear_sets.hpp"

#if defined(__aarch64__)

#include "core/simd/dispatched.hpp"

#define SABIYARN_KERNEL SABIYARN_DISPATCHED("arch=armv8.2-a+dotprod+i8mm")

#include "core/kernels/linear_sdot.hpp"

namespace sabiyarn {
namespace {

constexpr int kRowsAtOnce = 8;  // 16 sums, 4 registers of weights, the codes of two rows: 21 of 32

// Sums of two rows and two outputs in each register; an odd row stands in for its missing neighbour.
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

SABIYARN_KERNEL inline int8x16_t zip_low(int8x16_t a, int8x16_t b) noexcept {
  return vreinterpretq_s8_s32(vzip1q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}
SABIYARN_KERNEL inline int8x16_t zip_high(int8x16_t a, int8x16_t b) noexcept {
  return vreinterpretq_s8_s32(vzip2q_s32(vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b)));
}

// Eight inputs: `first` and `second` hold four of each output.
template <int kRows>
[[gnu::always_inline]] SABIYARN_KERNEL inline void add(MatrixSums<kRows>& sums, const int8x16_t (&first)[2],
                                                       const int8x16_t (&second)[2], const std::int8_t* codes,
                                                       std::int64_t stride) noexcept {
  const int8x16_t w[4] = {zip_low(first[0], second[0]), zip_high(first[0], second[0]),
                          zip_low(first[1], second[1]), zip_high(first[1], second[1])};
  SABIYARN_UNROLL
  for (int p = 0; p < sums.kPairs; ++p) {
    const std::int8_t* row = codes + 2 * p * stride;
    const std::int8_t* next = 2 * p + 1 < kRows ? row + stride : row;
    const int8x16_t pair = vcombine_s8(vld1_s8(row), vld1_s8(next));
    SABIYARN_UNROLL
    for (int o = 0; o < 4; ++o) sums.values[p][o] = vmmlaq_s32(sums.values[p][o], pair, w[o]);
  }
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
    const std::int8_t* codes = rows.codes;
    for (std::int64_t k = 0; k < rows.inputs; k += 8, codes += 8, weights += 2 * kGroupBytes) {
      __builtin_prefetch(weights + kPrefetch);
      int8x16_t first[2], second[2];
      load_group(weights, first);
      load_group(weights + kGroupBytes, second);
      add(sums, first, second, codes, rows.code_stride);
    }
    finish(sums, result);
  }
}

// Sums of 16 inputs end too soon for matrix products to gain what zipping their operands costs.
template <int kRows, int kTiles>
[[gnu::always_inline]] SABIYARN_KERNEL inline void nibble_sums(
    const std::byte* weights, std::ptrdiff_t, const ActivationBlock& rows,
    EightInts (&result)[std::size_t{kRows}][std::size_t{kTiles}]) noexcept {
  sdot_nibble_sums<kRows>(weights, rows, result);
}

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/linear_kernel.hpp"

namespace sabiyarn {
const LinearKernels kLinearI8mm = {"i8mm", normalize, round_row, multiply, multiply_floats_plain};
}  // namespace sabiyarn

#endif
