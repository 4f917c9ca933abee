// csrc/core/kernels/attention_avx2.cpp - attention with AVX2, FMA and F16C, which came together in 2013.
#include "core/kernels/attention_sets.hpp"

#if defined(__x86_64__)

#include "core/simd/dispatched.hpp"

#define SABIYARN_KERNEL SABIYARN_DISPATCHED("avx2,fma,f16c")

#include "core/kernels/attention_fma_f16c.hpp"
#include "core/kernels/attention_kernel.hpp"

namespace sabiyarn {
const AttentionKernels kAttentionAvx2 = {"avx2", append, attend};
}  // namespace sabiyarn

#endif
