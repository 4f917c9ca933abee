// csrc/core/kernels/linear_tasks.hpp - how a product with a tiled matrix is cut into tasks for threads.
//
// The cuts decide who computes an output, never its bits.
#pragma once

#include <algorithm>

#include "core/kernels/tiled_matrix.hpp"

namespace sabiyarn {

// What one thread takes at a time: enough to be read in one go, little enough that slow threads do not keep
// others waiting. Of many rows the multiplying takes longer than the reading: some ten microseconds with AVX2.
inline constexpr std::size_t kBytesPerTask = 64 << 10;
inline constexpr std::int64_t kProductsPerTask = 256 << 10;
// Rows that are normalized and rounded in one task: a few microseconds.
inline constexpr std::int64_t kRowsPerTask = 4;
// Tiles that share what they read of several rows: of floats, a slice of them and of 256 rows fits into 512 KiB of
// cache. Fewer would have two threads write into neighbouring cache lines.
inline constexpr std::int64_t kTilesOfManyRows = 8;

// An even number, as products take tiles in pairs; all tasks of a matrix but its last are equal.
inline std::int64_t tiles_per_task(const TiledMatrix& weights, std::int64_t num_rows) noexcept {
  const auto read_at_once = static_cast<std::int64_t>(kBytesPerTask / weights.tile_bytes());
  const std::int64_t multiplied_at_once = kProductsPerTask / (num_rows * kTileOutputs * weights.inputs);
  const std::int64_t least = num_rows > 1 ? kTilesOfManyRows : 2;
  const std::int64_t at_once = std::max(std::min(read_at_once, multiplied_at_once), least);
  const std::int64_t tasks = (weights.tiles() + at_once - 1) / at_once;
  const std::int64_t per_task = (weights.tiles() + tasks - 1) / tasks;
  return per_task + per_task % 2;
}

// task(row) for each row < num_rows, on the threads of parallel_for(count, task).
template <typename ParallelFor, typename Task>
void for_each_row(const ParallelFor& parallel_for, std::int64_t num_rows, const Task& task) {
  parallel_for((num_rows + kRowsPerTask - 1) / kRowsPerTask, [&](std::int64_t group) {
    const std::int64_t end = std::min((group + 1) * kRowsPerTask, num_rows);
    for (std::int64_t row = group * kRowsPerTask; row < end; ++row) task(row);
  });
}

}  // namespace sabiyarn
