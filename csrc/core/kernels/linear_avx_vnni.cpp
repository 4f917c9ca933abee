// csrc/core/kernels/linear_avx_vnni.cpp - products of bytes with AVX-VNNI: Intel since Alder Lake (also its N100),
// AMD since Zen 5.
#include "core/kernels/linear_sets.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

#include "core/simd/dispatched.hpp"

#define SABIYARN_KERNEL SABIYARN_DISPATCHED("avx2,avxvnni")

namespace sabiyarn {
namespace {

SABIYARN_KERNEL inline __m256i dot_products(__m256i sums, __m256i unsigned_bytes,
                                            __m256i signed_bytes) noexcept {
  return _mm256_dpbusd_avx_epi32(sums, unsigned_bytes, signed_bytes);
}

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/linear_vnni.hpp"

namespace sabiyarn {
const LinearKernels kLinearAvxVnni = {"avx_vnni", normalize, round_row, multiply, multiply_floats_avx2};
}  // namespace sabiyarn

#endif
