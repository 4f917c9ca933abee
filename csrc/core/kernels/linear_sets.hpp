// csrc/core/kernels/linear_sets.hpp - the instruction sets that products of tiled matrices are written for.
#pragma once

#include <cstring>

#include "core/kernels/linear.hpp"

namespace sabiyarn {

extern const LinearKernels kLinearPlain;  // runs everywhere; on ARM it uses what armv8-a has
#if defined(__x86_64__)
extern const LinearKernels kLinearAvx2;
extern const LinearKernels kLinearAvxVnni;
extern const LinearKernels kLinearAvx512Vnni;
#elif defined(__aarch64__)
extern const LinearKernels kLinearDotProduct;
#endif

}  // namespace sabiyarn
