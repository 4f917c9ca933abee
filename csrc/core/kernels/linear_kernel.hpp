// csrc/core/kernels/linear_kernel.hpp - the loops of linear.hpp around the products of one instruction set.
//
// Included once by each linear_<set>.cpp, behind its definitions of
//   SABIYARN_KERNEL  attributes of every function here: the instruction set, if it is not the baseline
//   byte_sums<kRows, kAhead>(...), nibble_sums<kRows, kAhead>(...)
//                    the integer dot products of one block of a tile with kRows rows, always inlined; of half bytes
//                    times the scales of 16 inputs
// All of it has internal linkage: the linker must never take a copy made for another instruction set.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "core/kernels/linear_output.hpp"
#include "core/simd/lanes.hpp"

namespace sabiyarn {
namespace {

SABIYARN_KERNEL inline float sum_of_lanes(const Eight& value) noexcept {
  float v[8];
  store8(value, v);
  return ((v[0] + v[4]) + (v[1] + v[5])) + ((v[2] + v[6]) + (v[3] + v[7]));
}

SABIYARN_KERNEL inline void normalize(const float* values, std::int64_t width, const Norm& norm,
                                      float* target) noexcept {
  Eight sums = {}, squares = {};
  for (std::int64_t k = 0; k < width; k += 8) sums = sums + load8(values + k);
  const Eight mean = broadcast8(sum_of_lanes(sums) / static_cast<float>(width));
  for (std::int64_t k = 0; k < width; k += 8) {
    const Eight difference = load8(values + k) - mean;
    squares = squares + difference * difference;
  }
  const float variance = sum_of_lanes(squares) / static_cast<float>(width);
  const Eight inverse = broadcast8(1.0f / std::sqrt(variance + kNormEpsilon));
  for (std::int64_t k = 0; k < width; k += 8) {
    const Eight bias = norm.bias != nullptr ? load8(norm.bias + k) : Eight{};
    store8((load8(values + k) - mean) * inverse * load8(norm.scale + k) + bias, target + k);
  }
}

// QuantizedActivations::corrections of 16 codes.
SABIYARN_KERNEL inline void correct(const std::int8_t* codes, std::int16_t* corrections) noexcept {
  using EightBytes [[gnu::vector_size(8)]] = std::int8_t;
  using EightShorts [[gnu::vector_size(16)]] = std::int16_t;
  EightBytes halves[2];
  std::memcpy(halves, codes, sizeof halves);
  EightShorts sums =
      __builtin_convertvector(halves[0], EightShorts) + __builtin_convertvector(halves[1], EightShorts);
  sums = sums + __builtin_shufflevector(sums, sums, 4, 5, 6, 7, 4, 5, 6, 7);
  sums = (sums + __builtin_shufflevector(sums, sums, 1, 1, 3, 3, 4, 5, 6, 7)) * std::int16_t{-32};
  corrections[0] = sums[0];
  corrections[1] = sums[2];
}

SABIYARN_KERNEL inline void round_row(const float* values, std::int64_t row,
                                      QuantizedActivations& rounded) noexcept {
  const std::int64_t block = rounded.inputs / rounded.blocks;
  std::int8_t* codes = rounded.codes.data() + row * rounded.inputs;
  std::int16_t* corrections = rounded.corrections.data() + row * rounded.inputs / kSubBlock * 2;
  for (std::int64_t b = 0; b < rounded.blocks; ++b, values += block, codes += block) {
    // Magnitudes are in the order of their bits, and NaN comes last: it then is the scale, and so every
    // product's.
    std::int32_t largest_bits = 0;
    for (std::int64_t k = 0; k < block; ++k) {
      const std::int32_t magnitude = std::bit_cast<std::int32_t>(values[k]) & 0x7fffffff;
      largest_bits = magnitude > largest_bits ? magnitude : largest_bits;
    }
    const auto largest = std::bit_cast<float>(largest_bits);
    const float scale = largest / 127.0f;
    // A block of zeros, or of values so small that their inverse overflows: zeros.
    const float inverse = largest > 1e-36f ? 127.0f / largest : 0.0f;
    std::int32_t sum = 0;
    for (std::int64_t k = 0; k < block; ++k) {
      // Adding 1.5 * 2^23 leaves no bits for a fraction: the sum's low bits are the nearest integer, ties to
      // even.
      const float shifted = values[k] * inverse + 12582912.0f;
      codes[k] = static_cast<std::int8_t>(std::bit_cast<std::int32_t>(shifted) - 0x4b400000);
      sum += codes[k];
    }
    for (std::int64_t k = 0; k < block; k += kSubBlock, corrections += 2) correct(codes + k, corrections);
    const auto at = static_cast<std::size_t>(row * rounded.blocks + b);
    rounded.sums[at] = sum;
    rounded.scales[at] = scale;
  }
}

SABIYARN_KERNEL inline Eight load_header(const std::byte* source) noexcept {
  return load8(reinterpret_cast<const float*>(source));
}

template <int kBits, int kRows, bool kAhead>
[[gnu::always_inline]] SABIYARN_KERNEL inline void multiply_tile(const TiledMatrix& weights,
                                                                 const QuantizedActivations& rows,
                                                                 std::int64_t tile, std::int64_t row,
                                                                 const LinearOutput& output) noexcept {
  const std::int64_t num_blocks = rows.blocks, block = weights.block;
  const std::int8_t* codes = rows.codes.data() + row * rows.inputs;
  const std::int32_t* sums = rows.sums.data() + row * num_blocks;
  const float* scales = rows.scales.data() + row * num_blocks;
  const std::int64_t sub_blocks = rows.inputs / kSubBlock;  // of a row
  const std::int16_t* corrections = rows.corrections.data() + row * sub_blocks * 2;
  const std::byte* tile_begin = weights.tile(tile);
  const std::byte* source = tile_begin + weights.tile_header_bytes();
  Eight total[std::size_t{kRows}] = {};
  for (std::int64_t b = 0; b < num_blocks; ++b, codes += block) {
    EightInts products[std::size_t{kRows}];
    if constexpr (kBits == 8) {
      const Eight scale = load_header(source);
      byte_sums<kRows, kAhead>(source + sizeof scale, codes, rows.inputs, sums + b, num_blocks, block / 4,
                               products);
      SABIYARN_UNROLL
      for (int r = 0; r < kRows; ++r) {
        total[r] = total[r] + to_floats(products[r]) * (scale * broadcast8(scales[r * num_blocks + b]));
      }
    } else {
      nibble_sums<kRows, kAhead>(source, codes, rows.inputs, corrections, 2 * sub_blocks, block / kSubBlock,
                                 products);
      corrections += block / kSubBlock * 2;
      SABIYARN_UNROLL
      for (int r = 0; r < kRows; ++r) {
        total[r] = total[r] + to_floats(products[r]) * broadcast8(scales[r * num_blocks + b]);
      }
    }
    source += weights.block_bytes();
  }
  if constexpr (kBits == 4) {
    const Eight row_scale = load_header(tile_begin);
    SABIYARN_UNROLL
    for (int r = 0; r < kRows; ++r) total[r] = total[r] * row_scale;
  }
  for (int r = 0; r < kRows; ++r) write_tile(total[r], weights.outputs, tile, row + r, output);
}

// A function for each number of rows, so that all of its sums stay in registers. They are no templates: GCC
// leaves out the section of a template's instances (its bug 70435), so templates are only ever inlined.
#define SABIYARN_TILE(name, kBits, kRows, kAhead)                                                           \
  [[gnu::noinline]] SABIYARN_KERNEL void name(const TiledMatrix& weights, const QuantizedActivations& rows, \
                                              std::int64_t tile, std::int64_t row,                          \
                                              const LinearOutput& output) noexcept {                        \
    multiply_tile<kBits, kRows, kAhead>(weights, rows, tile, row, output);                                  \
  }
#define SABIYARN_TILES(kBits, kRows)                         \
  SABIYARN_TILE(ahead_##kBits##_##kRows, kBits, kRows, true) \
  SABIYARN_TILE(later_##kBits##_##kRows, kBits, kRows, false)
SABIYARN_TILES(8, 1)
SABIYARN_TILES(8, 2)
SABIYARN_TILES(8, 3)
SABIYARN_TILES(8, 4)
SABIYARN_TILES(4, 1)
SABIYARN_TILES(4, 2)
SABIYARN_TILES(4, 3)
SABIYARN_TILES(4, 4)
#undef SABIYARN_TILES
#undef SABIYARN_TILE

constexpr std::int64_t kRowsAtOnce = 4;

// By the number of rows. The first rows take a tile from memory, the later ones find it in the nearest cache.
struct TileFunctions {
  using Function = void (*)(const TiledMatrix&, const QuantizedActivations&, std::int64_t, std::int64_t,
                            const LinearOutput&) noexcept;
  Function ahead[kRowsAtOnce + 1], later[kRowsAtOnce + 1];
};
constexpr TileFunctions kBytes = {{nullptr, ahead_8_1, ahead_8_2, ahead_8_3, ahead_8_4},
                                  {nullptr, later_8_1, later_8_2, later_8_3, later_8_4}};
constexpr TileFunctions kNibbles = {{nullptr, ahead_4_1, ahead_4_2, ahead_4_3, ahead_4_4},
                                    {nullptr, later_4_1, later_4_2, later_4_3, later_4_4}};

SABIYARN_KERNEL inline void multiply(const TiledMatrix& weights, const QuantizedActivations& rows,
                                     std::int64_t first, std::int64_t end,
                                     const LinearOutput& output) noexcept {
  const TileFunctions& functions = weights.type == WeightType::kInt8 ? kBytes : kNibbles;
  for (std::int64_t tile = first; tile < end; ++tile) {
    for (std::int64_t row = 0; row < rows.rows; row += kRowsAtOnce) {
      const std::int64_t count = std::min(kRowsAtOnce, rows.rows - row);
      (row == 0 ? functions.ahead : functions.later)[count](weights, rows, tile, row, output);
    }
  }
}

}  // namespace
}  // namespace sabiyarn
