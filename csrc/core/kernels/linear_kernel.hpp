// csrc/core/kernels/linear_kernel.hpp - the loops of linear.hpp around the dot products of one instruction set.
//
// Included once by each linear_<set>.cpp, behind its definitions of
//   SABIYARN_KERNEL  attributes of every function here: the instruction set, if it is not the baseline
//   kRowsAtOnce, kTilesAtOnce
//                    rows (at most 8) and tiles (1 or 2) whose sums fit into the registers; one row reads one tile
//   kRowsWoven       1, or 2 where the codes of pairs of rows are woven (quantized_activations.hpp)
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

// Codes of one row as the kernels read them, where those of two rows are woven.
SABIYARN_KERNEL inline void weave(const std::int8_t* codes, std::int64_t count,
                                  std::int8_t* target) noexcept {
  for (std::int64_t k = 0; k < count; k += 8) std::memcpy(target + 2 * k, codes + k, 8);
}

SABIYARN_KERNEL inline void round_row(const float* values, std::int64_t row,
                                      const QuantizedActivations& rounded) noexcept {
  const std::int64_t block = rounded.inputs / rounded.blocks;
  const bool woven = kRowsWoven == 2 && rounded.rows > 1;
  std::int8_t* codes =
      rounded.codes + (woven ? row / 2 * 2 * rounded.inputs + row % 2 * 8 : row * rounded.inputs);
  std::int8_t unwoven[256];
  const std::int64_t at_once = woven ? std::min<std::int64_t>(block, sizeof unwoven) : block;
  std::int16_t* corrections = rounded.corrections + row * rounded.inputs / kSubBlock * 2;
  for (std::int64_t b = 0; b < rounded.blocks; ++b) {
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
    for (std::int64_t left = block, count; left > 0; left -= count, values += count) {
      count = std::min(at_once, left);
      std::int8_t* target = woven ? unwoven : codes;
      for (std::int64_t k = 0; k < count; ++k) {
        // Adding 1.5 * 2^23 leaves no bits for a fraction: the sum's low bits are the nearest integer, ties to
        // even.
        const float shifted = values[k] * inverse + 12582912.0f;
        target[k] = static_cast<std::int8_t>(std::bit_cast<std::int32_t>(shifted) - 0x4b400000);
        sum += target[k];
      }
      for (std::int64_t k = 0; k < count; k += kSubBlock, corrections += 2) correct(target + k, corrections);
      if (woven) weave(unwoven, count, codes);
      codes += (woven ? 2 : 1) * count;
    }
    const std::int64_t at = row * rounded.blocks + b;
    rounded.sums[at] = sum;
    rounded.scales[at] = scale;
  }
}

SABIYARN_KERNEL inline Eight load_header(const std::byte* source) noexcept {
  return load8(reinterpret_cast<const float*>(source));
}

// One or two tiles for a few rows. What it knows of the weights is looked up once for many tiles.
struct TileTask {
  const QuantizedActivations* rows;
  std::int64_t block;  // inputs
  std::ptrdiff_t tile_header_bytes, tile_bytes, block_bytes;
  std::int64_t outputs;  // of all tiles
  const LinearOutput* output;
  std::int64_t tile, row;
  const std::byte* weights;  // of the tile
  bool alone;                // no tile is left behind it
};

template <int kBits, int kRows, int kTiles>
[[gnu::always_inline]] SABIYARN_KERNEL inline void multiply_tiles(const TileTask& task) noexcept {
  const QuantizedActivations& rows = *task.rows;
  const std::int64_t num_blocks = rows.blocks;
  const float* row_scale = rows.scales + task.row * num_blocks;
  const std::int64_t sub_blocks = rows.inputs / kSubBlock;  // of a row
  ActivationBlock block{rows.codes + task.row * rows.inputs,
                        rows.inputs,
                        rows.sums + task.row * num_blocks,
                        num_blocks,
                        rows.corrections + task.row * sub_blocks * 2,
                        sub_blocks * 2,
                        task.block};
  // Where no second tile is left, the first one is its own neighbour: computed twice, written once.
  const std::ptrdiff_t tile_stride = task.alone ? 0 : task.tile_bytes;
  const std::byte* source = task.weights + task.tile_header_bytes;
  const std::ptrdiff_t block_bytes = task.block_bytes;
  Eight total[std::size_t{kTiles}][std::size_t{kRows}] = {};
  for (std::int64_t b = 0; b < num_blocks; ++b, source += block_bytes) {
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
        total[t][r] = total[t][r] + to_floats(sums[r][t]) * scale;
      }
    }
    block.codes += (kRows > 1 ? kRowsWoven : 1) * block.inputs;
    ++block.sum;
    block.corrections += block.inputs / kSubBlock * 2;
  }
  if constexpr (kBits == 4) {
    const std::byte* header = task.weights;
    SABIYARN_UNROLL
    for (int t = 0; t < kTiles; ++t, header += tile_stride) {
      SABIYARN_UNROLL
      for (int r = 0; r < kRows; ++r) total[t][r] = total[t][r] * load_header(header);
    }
  }
  for (int t = 0; t < (task.alone ? 1 : kTiles); ++t) {
    write_tile(total[t], kRows, task.outputs, task.tile + t, task.row, *task.output);
  }
}

// A function for each number of rows, so that all of its sums stay in registers. They are no templates: GCC
// leaves out the section of a template's instances (its bug 70435), so templates are only ever inlined.
#define SABIYARN_TILES(kBits, kRows)                                                                   \
  [[gnu::noinline]] SABIYARN_KERNEL void rows_##kBits##_##kRows(const TileTask& task) noexcept {       \
    if constexpr (kRows == 1) multiply_tiles<kBits, 1, 1>(task);                                       \
    if constexpr (kRows > 1 && kRows <= kRowsAtOnce) multiply_tiles<kBits, kRows, kTilesAtOnce>(task); \
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

using TileFunctions = std::array<void (*)(const TileTask&) noexcept, 9>;
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
  TileTask task{&rows,
                weights.block,
                static_cast<std::ptrdiff_t>(weights.tile_header_bytes()),
                static_cast<std::ptrdiff_t>(weights.tile_bytes()),
                static_cast<std::ptrdiff_t>(weights.block_bytes()),
                weights.outputs,
                &output,
                first,
                0,
                weights.tile(first),
                false};
  for (; task.tile < end; task.tile += tiles_at_once, task.weights += tiles_at_once * task.tile_bytes) {
    task.alone = task.tile + 1 == end;
    // The kernels prefetch along a tile, so the beginning of a second one is prefetched here.
    if (tiles_at_once == 2 && task.tile + 3 < end) {
      const std::byte* start = task.weights + 3 * task.tile_bytes;
      for (std::ptrdiff_t line = 0; line < kPrefetch; line += 64) __builtin_prefetch(start + line);
    }
    std::int64_t count;
    for (task.row = 0; task.row < rows.rows; task.row += count) {
      const std::int64_t left = rows.rows - task.row, groups = (left + kRowsAtOnce - 1) / kRowsAtOnce;
      count = (left + groups - 1) / groups;  // 9 rows are 5 and 4
      count = std::min((count + kRowsWoven - 1) / kRowsWoven * kRowsWoven, left);
      functions[static_cast<std::size_t>(count)](task);
    }
  }
}

}  // namespace
}  // namespace sabiyarn
