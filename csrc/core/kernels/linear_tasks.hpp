// csrc/core/kernels/linear_tasks.hpp - how a product with a tiled matrix is cut into tasks for threads.
//
// The cuts decide who computes an output, never its bits.
#pragma once

#include <algorithm>

#include "core/kernels/tiled_matrix.hpp"

namespace sabiyarn {

// What one thread takes at a time: enough to be read in one go, little enough that slow threads do not keep
// others waiting.
inline constexpr std::size_t kBytesPerTask = 64 << 10;
// Rows that are normalized and rounded in one task: a few microseconds.
inline constexpr std::int64_t kRowsPerTask = 4;
// Float tiles that share what they read of many rows: a slice of them and of 256 rows fits into 512 KiB of
// cache.
inline constexpr std::int64_t kTilesOfManyRows = 8;

// An even number: products take tiles in pairs.
inline std::int64_t tiles_per_task(const TiledMatrix& weights, std::int64_t num_rows) noexcept {
  const auto read_at_once = static_cast<std::int64_t>(kBytesPerTask / weights.tile_bytes());
  const std::int64_t least = is_float(weights.type) && num_rows > 1 ? kTilesOfManyRows : 2;
  return std::max(read_at_once + read_at_once % 2, least);
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
