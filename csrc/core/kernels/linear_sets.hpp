// csrc/core/kernels/linear_sets.hpp - the instruction sets that products of tiled matrices are written for.
#pragma once

#include "core/kernels/linear.hpp"

namespace sabiyarn {

// LinearKernels::multiply_floats of several sets; what "plain" means on ARM is what armv8-a has.
void multiply_floats_plain(const TiledMatrix& weights, const float* rows, std::int64_t num_rows,
                           std::int64_t first, std::int64_t end, const LinearOutput& output) noexcept;
#if defined(__x86_64__)
void multiply_floats_avx2(const TiledMatrix& weights, const float* rows, std::int64_t num_rows,
                          std::int64_t first, std::int64_t end, const LinearOutput& output) noexcept;
#endif

extern const LinearKernels kLinearPlain;  // runs everywhere
#if defined(__x86_64__)
extern const LinearKernels kLinearAvx2;
extern const LinearKernels kLinearAvxVnni;
extern const LinearKernels kLinearAvx512Vnni;
#elif defined(__aarch64__)
extern const LinearKernels kLinearDotProduct;
extern const LinearKernels kLinearI8mm;
#endif

}  // namespace sabiyarn
