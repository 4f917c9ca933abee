// csrc/core/simd/instruction_sets.hpp - which instructions beyond the baseline (x86-64, armv8-a) this CPU has.
#pragma once

namespace sabiyarn {

// x86-64. All false elsewhere.
bool has_avx2() noexcept;
bool has_avx2_f16c_fma() noexcept;
bool has_avx_vnni() noexcept;
bool has_avx512_vnni() noexcept;  // with AVX-512VL: on registers of 256 bits

// ARM: sdot. False elsewhere.
bool has_dot_product() noexcept;

}  // namespace sabiyarn
