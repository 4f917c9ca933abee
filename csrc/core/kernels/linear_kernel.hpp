// csrc/core/kernels/linear_kernel.hpp - the loops of linear.hpp around the dot products of one instruction set.
//
// Included once by each linear_<set>.cpp, behind its definitions of
//   SABIYARN_KERNEL  attributes of every function here: the instruction set, if it is not the baseline
//   kRowsAtOnce, kTilesAtOnce
//                    rows (at most 8) and tiles (1 or 2) whose sums fit into the registers; one row reads one tile
//   byte_sums<kRows, kTiles>(weights, tile_stride, rows, sums), nibble_sums<kRows, kTiles>(...)
//                    the integer dot products of one block of each tile with kRows rows, always inlined; the tiles lie
//                    tile_stride bytes apart. Bytes begin at the block's codes; half bytes at its scales, which the
//                    products of each 16 inputs are multiplied by
// All of it has internal linkage: the linker must never take a copy made for another instruction set.
#pragma once

#include <algorithm>
#include <array>
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

template <int kBits, int kRows, int kTiles>
[[gnu::always_inline]] SABIYARN_KERNEL inline void multiply_tiles(const TiledMatrix& weights,
                                                                  const QuantizedActivations& rows,
                                                                  std::int64_t tile, std::int64_t end,
                                                                  std::int64_t row,
                                                                  const LinearOutput& output) noexcept {
  const std::int64_t num_blocks = rows.blocks;
  const float* row_scale = rows.scales.data() + row * num_blocks;
  const std::int64_t sub_blocks = rows.inputs / kSubBlock;  // of a row
  ActivationBlock block{rows.codes.data() + row * rows.inputs,
                        rows.inputs,
                        rows.sums.data() + row * num_blocks,
                        num_blocks,
                        rows.corrections.data() + row * sub_blocks * 2,
                        sub_blocks * 2,
                        weights.block};
  // Where no second tile is left, the first one is its own neighbour: computed twice, written once.
  const bool alone = tile + 1 == end;
  const std::ptrdiff_t tile_stride = alone ? 0 : static_cast<std::ptrdiff_t>(weights.tile_bytes());
  const std::byte* tile_header = weights.tile(tile);
  const std::byte* source = tile_header + weights.tile_header_bytes();
  Eight total[std::size_t{kRows}][std::size_t{kTiles}] = {};
  for (std::int64_t b = 0; b < num_blocks; ++b, source += weights.block_bytes()) {
    EightInts sums[std::size_t{kRows}][std::size_t{kTiles}];
    if constexpr (kBits == 8) byte_sums<kRows, kTiles>(source + sizeof(Eight), tile_stride, block, sums);
    if constexpr (kBits == 4) nibble_sums<kRows, kTiles>(source, tile_stride, block, sums);
    const std::byte* header = source;
    SABIYARN_UNROLL
    for (int t = 0; t < kTiles; ++t, header += tile_stride) {
      SABIYARN_UNROLL
      for (int r = 0; r < kRows; ++r) {
        Eight scale = broadcast8(row_scale[r * num_blocks + b]);
        if constexpr (kBits == 8) scale = load_header(header) * scale;
        total[r][t] = total[r][t] + to_floats(sums[r][t]) * scale;
      }
    }
    block.codes += block.inputs;
    ++block.sum;
    block.corrections += block.inputs / kSubBlock * 2;
  }
  if constexpr (kBits == 4) {
    SABIYARN_UNROLL
    for (int t = 0; t < kTiles; ++t, tile_header += tile_stride) {
      SABIYARN_UNROLL
      for (int r = 0; r < kRows; ++r) total[r][t] = total[r][t] * load_header(tile_header);
    }
  }
  for (int t = 0; t < (alone ? 1 : kTiles); ++t) {
    for (int r = 0; r < kRows; ++r) write_tile(total[r][t], weights.outputs, tile + t, row + r, output);
  }
}

// A function for each number of rows, so that all of its sums stay in registers. They are no templates: GCC
// leaves out the section of a template's instances (its bug 70435), so templates are only ever inlined.
#define SABIYARN_TILES(kBits, kRows)                                                                     \
  [[gnu::noinline]] SABIYARN_KERNEL void rows_##kBits##_##kRows(                                         \
      const TiledMatrix& weights, const QuantizedActivations& rows, std::int64_t tile, std::int64_t end, \
      std::int64_t row, const LinearOutput& output) noexcept {                                           \
    if constexpr (kRows == 1) multiply_tiles<kBits, 1, 1>(weights, rows, tile, end, row, output);        \
    if constexpr (kRows > 1 && kRows <= kRowsAtOnce) {                                                   \
      multiply_tiles<kBits, kRows, kTilesAtOnce>(weights, rows, tile, end, row, output);                 \
    }                                                                                                    \
  }
#define SABIYARN_ROWS(kBits) \
  SABIYARN_TILES(kBits, 1)   \
  SABIYARN_TILES(kBits, 2)   \
  SABIYARN_TILES(kBits, 3)   \
  SABIYARN_TILES(kBits, 4)   \
  SABIYARN_TILES(kBits, 5)   \
  SABIYARN_TILES(kBits, 6)   \
  SABIYARN_TILES(kBits, 7)   \
  SABIYARN_TILES(kBits, 8)
SABIYARN_ROWS(8)
SABIYARN_ROWS(4)
#undef SABIYARN_ROWS
#undef SABIYARN_TILES

using TileFunctions = std::array<void (*)(const TiledMatrix&, const QuantizedActivations&, std::int64_t,
                                          std::int64_t, std::int64_t, const LinearOutput&) noexcept,
                                 9>;
constexpr TileFunctions kBytes = {nullptr,  rows_8_1, rows_8_2, rows_8_3, rows_8_4,
                                  rows_8_5, rows_8_6, rows_8_7, rows_8_8};
constexpr TileFunctions kNibbles = {nullptr,  rows_4_1, rows_4_2, rows_4_3, rows_4_4,
                                    rows_4_5, rows_4_6, rows_4_7, rows_4_8};

// Rows stay inside: all of them read a pair of tiles while it lies in the nearest caches.
SABIYARN_KERNEL inline void multiply(const TiledMatrix& weights, const QuantizedActivations& rows,
                                     std::int64_t first, std::int64_t end,
                                     const LinearOutput& output) noexcept {
  const TileFunctions& functions = weights.type == WeightType::kInt8 ? kBytes : kNibbles;
  const std::int64_t tiles_at_once = rows.rows == 1 ? 1 : kTilesAtOnce;
  for (std::int64_t tile = first; tile < end; tile += tiles_at_once) {
    // The kernels prefetch along a tile, so the beginning of a second one is prefetched here.
    if (tiles_at_once == 2 && tile + 3 < end) {
      const std::byte* start = weights.tile(tile + 3);
      for (std::ptrdiff_t line = 0; line < kPrefetch; line += 64) __builtin_prefetch(start + line);
    }
    std::int64_t count;
    for (std::int64_t row = 0; row < rows.rows; row += count) {
      const std::int64_t left = rows.rows - row, groups = (left + kRowsAtOnce - 1) / kRowsAtOnce;
      count = (left + groups - 1) / groups;  // 9 rows are 5 and 4
      functions[static_cast<std::size_t>(count)](weights, rows, tile, end, row, output);
    }
  }
}

}  // namespace
}  // namespace sabiyarn
