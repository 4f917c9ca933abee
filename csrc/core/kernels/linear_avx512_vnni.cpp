// csrc/core/kernels/linear_avx512_vnni.cpp - products of bytes with AVX-512's VNNI on registers of 256 bits: Intel
// since Cascade Lake and Ice Lake, AMD since Zen 4.
#include "core/kernels/linear_sets.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

#include "core/simd/dispatched.hpp"

#define SABIYARN_KERNEL SABIYARN_DISPATCHED("avx2,avx512vl,avx512vnni")

namespace sabiyarn {
namespace {

SABIYARN_KERNEL inline __m256i dot_products(__m256i sums, __m256i unsigned_bytes,
                                            __m256i signed_bytes) noexcept {
  return _mm256_dpbusd_epi32(sums, unsigned_bytes, signed_bytes);
}

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/linear_vnni.hpp"

namespace sabiyarn {
const LinearKernels kLinearAvx512Vnni = {"avx512_vnni", normalize, round_row, multiply, multiply_floats_avx2};
}  // namespace sabiyarn

#endif
