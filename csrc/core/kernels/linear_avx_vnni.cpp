// csrc/core/kernels/linear_avx_vnni.cpp - dot products of bytes with AVX-VNNI: Intel since Alder Lake (also its N100),
// AMD since Zen 5.
#include "core/kernels/linear_sets.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

#include "core/kernels/linear_vnni_asm.hpp"
#include "core/simd/dispatched.hpp"

#define SABIYARN_KERNEL SABIYARN_DISPATCHED("avx2,avxvnni")

namespace sabiyarn {
namespace {

constexpr int kRowsAtOnce = 6;  // 12 sums, 2 registers of weights, the codes of a row: 15 of 16

[[gnu::always_inline]] SABIYARN_KERNEL inline void dot_products(__m256i& sums, __m256i unsigned_bytes,
                                                                __m256i signed_bytes) noexcept {
#if SABIYARN_VNNI_ASM
  asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sums) : "x"(unsigned_bytes), "x"(signed_bytes));
#else
  sums = _mm256_dpbusd_avx_epi32(sums, unsigned_bytes, signed_bytes);
#endif
}

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/linear_vnni.hpp"

namespace sabiyarn {
const LinearKernels kLinearAvxVnni = {"avx_vnni", normalize, round_row, multiply, multiply_floats_avx2};
}  // namespace sabiyarn

#endif
