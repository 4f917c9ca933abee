// csrc/core/kernels/linear_output.hpp - what follows a product: bias, GELU, residual, and the last tile's edge.
//
// Included once by each kernel file, behind its definitions of SABIYARN_KERNEL and Eight (see linear_kernel.hpp).
#pragma once

#include <algorithm>

#include "core/kernels/linear.hpp"
#include "core/simd/gelu.hpp"

namespace sabiyarn {
namespace {

SABIYARN_KERNEL inline void write(Eight value, const LinearOutput& output, std::int64_t first,
                                  std::int64_t at) noexcept {
  if (output.bias != nullptr) value = value + load8(output.bias + first);
  if (output.gelu) gelu_in_place(value);
  if (output.residual != nullptr) value = value + load8(output.residual + at);
  store8(value, output.out + at);
}

// Finishes the outputs of one tile for consecutive rows. Of the last tile, what is not padding.
[[gnu::noinline]] SABIYARN_KERNEL void write_tile(const Eight* totals, std::int64_t num_rows,
                                                  std::int64_t outputs, std::int64_t tile, std::int64_t row,
                                                  const LinearOutput& output) noexcept {
  const std::int64_t first = tile * kTileOutputs, left = outputs - first;
  std::int64_t begin = row * outputs + first;
  if (left >= kTileOutputs) {
    for (std::int64_t r = 0; r < num_rows; ++r, begin += outputs) write(totals[r], output, first, begin);
    return;
  }
  float bias[kTileOutputs] = {}, residual[kTileOutputs] = {}, out[kTileOutputs];
  LinearOutput part = output;
  part.out = out;
  if (output.bias != nullptr) {
    std::copy_n(output.bias + first, left, bias);
    part.bias = bias;
  }
  for (std::int64_t r = 0; r < num_rows; ++r, begin += outputs) {
    if (output.residual != nullptr) {
      std::copy_n(output.residual + begin, left, residual);
      part.residual = residual;
    }
    write(totals[r], part, 0, 0);
    std::copy_n(out, left, output.out + begin);
  }
}

}  // namespace
}  // namespace sabiyarn
