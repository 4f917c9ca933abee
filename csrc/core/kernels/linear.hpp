// csrc/core/kernels/linear.hpp - products of float32 rows with a TiledMatrix.
//
// Integer weights meet rows that were rounded to 8 bits (quantized_activations.hpp):
//
//   8 bits:  out[row, n] = sum over blocks b of  dot[n, b] * (scale[n, b] * x_scale[row, b])
//            dot[n, b]   = integer dot product of the codes
//   4 bits:  out[row, n] = row_scale[n] * sum over blocks b of  dot[n, b] * x_scale[row, b]
//            dot[n, b]   = sum over each 16 inputs j of  scale[n, j] * (integer dot product of entries and codes)
//
// Integer sums are exact and the float operations are added in the order of the blocks without fused multiply-add.
// Float weights meet the rows as they are:
//
//   out[row, n] = fma(x[K - 1], w[n, K - 1], ... fma(x[1], w[n, 1], fma(x[0], w[n, 0], 0)))
//
// Then, where they are asked for: + bias[n], GELU, + residual[row, n].
//
// So every instruction set gives the same bits, for one row and for many.
#pragma once

#include <cstdint>
#include <span>

#include "core/kernels/quantized_activations.hpp"
#include "core/kernels/tiled_matrix.hpp"

namespace sabiyarn {

struct LinearOutput {
  float* out;                       // [rows, outputs]
  const float* bias = nullptr;      // [outputs], or none
  const float* residual = nullptr;  // [rows, outputs], or none
  bool gelu = false;
};

// A layer norm's parameters, [inputs] each; there may be no bias.
struct Norm {
  const float* scale;
  const float* bias;
};
inline constexpr float kNormEpsilon = 1e-5f;  // GPTJX's, and torch's default

struct LinearKernels {
  const char* name;
  // target[k] = (values[k] - mean) / sqrt(variance + epsilon) * scale[k] + bias[k]; width is a multiple of 8,
  // and target may be values.
  void (*normalize)(const float* values, std::int64_t width, const Norm& norm, float* target) noexcept;
  // Rounds row `row` of `rounded`.
  void (*round_row)(const float* values, std::int64_t row, const QuantizedActivations& rounded) noexcept;
  // The outputs of tiles first ... end - 1, for all rows; of integer weights.
  void (*multiply)(const TiledMatrix& weights, const QuantizedActivations& rows, std::int64_t first,
                   std::int64_t end, const LinearOutput& output) noexcept;
  // The same of float weights and rows [num_rows, inputs].
  void (*multiply_floats)(const TiledMatrix& weights, const float* rows, std::int64_t num_rows,
                          std::int64_t first, std::int64_t end, const LinearOutput& output) noexcept;
};

// Those that this CPU can run, the best first; the last one runs everywhere.
std::span<const LinearKernels* const> linear_kernels() noexcept;

}  // namespace sabiyarn
