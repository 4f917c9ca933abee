// csrc/core/kernels/linear_floats.hpp - products of float32 rows with tiles of float32, float16 or bfloat16.
//
// Included once by each linear_floats_<set>.cpp, behind its definitions of
//   SABIYARN_KERNEL                attributes of every function here: the instruction set
//   Eight                          eight floats, with the functions of lane_eights.hpp or lane_pairs.hpp
//   widened(const Float32*), widened(const Float16*), widened(const Bfloat16*)
//                                  eight stored weights as Eight
//   fused(a, b, c)                 a * b + c rounded once
//   broadcast_load(const float*)   one float in all eight lanes
// All of it has internal linkage: the linker must never take a copy made for another instruction set.
//
// An output is one chain of fused multiply-adds over the inputs, from the first to the last, for any number of rows:
// its bits depend on nothing but its own row. The chain may pause between inputs, its total kept as float32 in the
// output, so that a slice of the weights stays in the nearest caches for all rows.
#pragma once

#include <algorithm>
#include <array>

#include "core/kernels/linear_output.hpp"
#include "core/simd/lanes.hpp"

namespace sabiyarn {
namespace {

// One pair of tiles for a few rows, the inputs begin ... end - 1.
struct FloatTask {
  const TiledMatrix* weights;
  const float* rows;  // [rows, inputs]
  std::int64_t row, tile, begin, end;
  const LinearOutput* output;
};

SABIYARN_KERNEL inline Eight load_totals(const FloatTask& task, std::int64_t tile,
                                         std::int64_t row) noexcept {
  const std::int64_t first = tile * kTileOutputs, left = task.weights->outputs - first;
  const float* source = task.output->out + row * task.weights->outputs + first;
  if (left >= kTileOutputs) return load8(source);
  float padded[kTileOutputs] = {};
  std::copy_n(source, left, padded);
  return load8(padded);
}

template <typename Stored, int kRows>
[[gnu::always_inline]] SABIYARN_KERNEL inline void multiply_tiles(const FloatTask& task) noexcept {
  const TiledMatrix& weights = *task.weights;
  const std::int64_t inputs = weights.inputs, tiles = weights.tiles();
  // Where no second tile is left, the first one is its own neighbour: computed twice, written once.
  const bool alone = task.tile + 1 == tiles;
  const std::int64_t tile[2] = {task.tile, alone ? task.tile : task.tile + 1};
  const auto* first = reinterpret_cast<const Stored*>(weights.tile(tile[0])) + task.begin * kTileOutputs;
  const auto* second = reinterpret_cast<const Stored*>(weights.tile(tile[1])) + task.begin * kTileOutputs;
  const float* x = task.rows + task.row * inputs + task.begin;

  Eight begun[std::size_t{kRows}][2] = {}, done[2][std::size_t{kRows}], total[std::size_t{kRows}][2];
  if (task.begin > 0) {
    for (int r = 0; r < kRows; ++r) {
      for (int t = 0; t < 2; ++t) begun[r][t] = load_totals(task, tile[t], task.row + r);
    }
  }
  // Only loops that are unrolled may touch the totals: GCC keeps an array in memory that any other loop indexes.
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    SABIYARN_UNROLL
    for (int t = 0; t < 2; ++t) total[r][t] = begun[r][t];
  }
  constexpr int kInLine = 64 / (static_cast<int>(kTileOutputs) * static_cast<int>(sizeof(Stored)));
  for (std::int64_t k = task.begin; k < task.end; k += kInLine, x += kInLine) {
    __builtin_prefetch(reinterpret_cast<const std::byte*>(first) + kPrefetch);
    __builtin_prefetch(reinterpret_cast<const std::byte*>(second) + kPrefetch);
    SABIYARN_UNROLL
    for (int i = 0; i < kInLine; ++i, first += kTileOutputs, second += kTileOutputs) {
      const Eight w[2] = {widened(first), widened(second)};
      SABIYARN_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const Eight value = broadcast_load(x + r * inputs + i);
        SABIYARN_UNROLL
        for (int t = 0; t < 2; ++t) total[r][t] = fused(value, w[t], total[r][t]);
      }
    }
  }
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    SABIYARN_UNROLL
    for (int t = 0; t < 2; ++t) done[t][r] = total[r][t];
  }
  LinearOutput output = *task.output;
  if (task.end < inputs) output = {output.out};  // to be continued
  write_tile(done[0], kRows, weights.outputs, tile[0], task.row, output);
  if (!alone) write_tile(done[1], kRows, weights.outputs, tile[1], task.row, output);
}

// A function for each number of rows, so that all totals stay in registers; see SABIYARN_TILE in linear_kernel.hpp.
#define SABIYARN_TILES(Stored, kRows)                                                               \
  [[gnu::noinline]] SABIYARN_KERNEL void tiles_##Stored##_##kRows(const FloatTask& task) noexcept { \
    multiply_tiles<Stored, kRows>(task);                                                            \
  }
#define SABIYARN_ROWS(Stored) \
  SABIYARN_TILES(Stored, 1)   \
  SABIYARN_TILES(Stored, 2)   \
  SABIYARN_TILES(Stored, 3)   \
  SABIYARN_TILES(Stored, 4)   \
  SABIYARN_TILES(Stored, 5)   \
  SABIYARN_TILES(Stored, 6)
SABIYARN_ROWS(Float32)
SABIYARN_ROWS(Float16)
SABIYARN_ROWS(Bfloat16)
#undef SABIYARN_ROWS
#undef SABIYARN_TILES

constexpr std::int64_t kFloatRowsAtOnce = 6;  // 12 totals, 2 registers of weights, 1 value: 15 of AVX2's 16
constexpr std::int64_t kSlice = 256;  // inputs: 16 KiB of a pair of tiles, 6 KiB of six rows, in float32

using FloatTiles = std::array<void (*)(const FloatTask&) noexcept, kFloatRowsAtOnce + 1>;
#define SABIYARN_ROWS(Stored) \
  {nullptr,                   \
   tiles_##Stored##_1,        \
   tiles_##Stored##_2,        \
   tiles_##Stored##_3,        \
   tiles_##Stored##_4,        \
   tiles_##Stored##_5,        \
   tiles_##Stored##_6}
constexpr FloatTiles kFloat32Tiles = SABIYARN_ROWS(Float32);
constexpr FloatTiles kFloat16Tiles = SABIYARN_ROWS(Float16);
constexpr FloatTiles kBfloat16Tiles = SABIYARN_ROWS(Bfloat16);
#undef SABIYARN_ROWS

SABIYARN_KERNEL inline void multiply_floats(const TiledMatrix& weights, const float* rows,
                                            std::int64_t num_rows, std::int64_t first, std::int64_t end,
                                            const LinearOutput& output) noexcept {
  const FloatTiles& functions = weights.type == WeightType::kFloat32   ? kFloat32Tiles
                                : weights.type == WeightType::kFloat16 ? kFloat16Tiles
                                                                       : kBfloat16Tiles;
  // Few rows read each tile once, from its first byte to its last.
  const std::int64_t slice = num_rows <= kFloatRowsAtOnce ? weights.inputs : kSlice;
  FloatTask task{&weights, rows, 0, 0, 0, 0, &output};
  for (; task.begin < weights.inputs; task.begin = task.end) {
    task.end = std::min(task.begin + slice, weights.inputs);
    std::int64_t count;
    for (task.row = 0; task.row < num_rows; task.row += count) {
      const std::int64_t left = num_rows - task.row;
      const std::int64_t groups = (left + kFloatRowsAtOnce - 1) / kFloatRowsAtOnce;
      count = (left + groups - 1) / groups;  // 7 rows are 4 and 3: one row alone waits for its own sums
      for (task.tile = first; task.tile < end; task.tile += 2) {
        functions[static_cast<std::size_t>(count)](task);
      }
    }
  }
}

}  // namespace
}  // namespace sabiyarn
