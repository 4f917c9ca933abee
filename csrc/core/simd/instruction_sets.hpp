// csrc/core/simd/instruction_sets.hpp - which instructions beyond the baseline (x86-64, armv8-a) kernels may use.
//
// Those that this CPU has. The environment variable SABIYARN_EDGE_ISA, read once, leaves out all above the set that it
// names: plain, avx2, avx_vnni or avx512_vnni; plain, dot_product or i8mm. Other names leave out nothing here;
// sabiyarn_edge/engine/operators.py refuses them.
#pragma once

namespace sabiyarn {

// x86-64. All false elsewhere.
bool has_avx2() noexcept;
bool has_avx2_f16c_fma() noexcept;
bool has_avx_vnni() noexcept;
bool has_avx512_vnni() noexcept;  // with AVX-512VL: on registers of 256 and 512 bits

// ARM: sdot, and smmla with it. False elsewhere.
bool has_dot_product() noexcept;
bool has_i8mm() noexcept;

}  // namespace sabiyarn
