// csrc/core/kernels/attention_sets.hpp - the instruction sets that attention is written for.
#pragma once

#include "core/kernels/attention.hpp"

namespace sabiyarn {

extern const AttentionKernels kAttentionPlain;  // runs everywhere; on ARM it uses what armv8-a has
#if defined(__x86_64__)
extern const AttentionKernels kAttentionAvx2;
extern const AttentionKernels kAttentionAvx512;
#endif

}  // namespace sabiyarn
