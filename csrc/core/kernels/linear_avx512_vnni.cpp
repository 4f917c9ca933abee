// csrc/core/kernels/linear_avx512_vnni.cpp - dot products of bytes with AVX-512's VNNI: Intel since Cascade Lake and Ice
// Lake, AMD since Zen 4. One row reads registers of 256 bits, several rows a pair of tiles in one of 512.
#include "core/kernels/linear_sets.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

#include <cstring>

#include "core/kernels/linear_vnni_asm.hpp"
#include "core/simd/dispatched.hpp"

#define SABIYARN_KERNEL SABIYARN_DISPATCHED("avx2,avx512f,avx512vl,avx512vnni")

namespace sabiyarn {
namespace {

// 8 sums of 32 registers. More rows gain nothing: the multiplications are the limit.
constexpr int kRowsAtOnce = 8;

[[gnu::always_inline]] SABIYARN_KERNEL inline void dot_products(__m256i& sums, __m256i unsigned_bytes,
                                                                __m256i signed_bytes) noexcept {
#if SABIYARN_VNNI_ASM
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(unsigned_bytes), "v"(signed_bytes));
#else
  sums = _mm256_dpbusd_epi32(sums, unsigned_bytes, signed_bytes);
#endif
}

// What two tiles hold of four inputs, or their sums; functions as in linear_vnni_pair.hpp. The compilers' vector type,
// because GCC 12 warns of uninitialized values inside of its own 512-bit intrinsics.
using Pair = std::uint32_t __attribute__((vector_size(64)));
using Half = std::uint32_t __attribute__((vector_size(32)));

SABIYARN_KERNEL inline Pair broadcast_pair(std::int32_t value) noexcept {
  return Pair{} + static_cast<std::uint32_t>(value);
}
SABIYARN_KERNEL inline Pair load_pair(const std::byte* first, std::ptrdiff_t tile_stride) noexcept {
  Half low, high;
  std::memcpy(&low, first, sizeof low);
  std::memcpy(&high, first + tile_stride, sizeof high);
  return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
}
SABIYARN_KERNEL inline Pair biased(const Pair& bytes) noexcept { return bytes ^ 0x80808080u; }
SABIYARN_KERNEL inline Pair add_pairs(const Pair& a, const Pair& b) noexcept { return a + b; }
SABIYARN_KERNEL inline __m256i first_of(const Pair& pair) noexcept {
  return reinterpret_cast<__m256i>(__builtin_shufflevector(pair, pair, 0, 1, 2, 3, 4, 5, 6, 7));
}
SABIYARN_KERNEL inline __m256i second_of(const Pair& pair) noexcept {
  return reinterpret_cast<__m256i>(__builtin_shufflevector(pair, pair, 8, 9, 10, 11, 12, 13, 14, 15));
}
[[gnu::always_inline]] SABIYARN_KERNEL inline void dot_products(Pair& sums, const Pair& unsigned_bytes,
                                                                std::int32_t signed_bytes) noexcept {
  const Pair broadcast = broadcast_pair(signed_bytes);
#if SABIYARN_VNNI_ASM
  asm("vpdpbusd %2, %1, %0" : "+v"(sums) : "v"(unsigned_bytes), "v"(broadcast));
#else
  sums = reinterpret_cast<Pair>(_mm512_dpbusd_epi32(reinterpret_cast<__m512i>(sums),
                                                    reinterpret_cast<__m512i>(unsigned_bytes),
                                                    reinterpret_cast<__m512i>(broadcast)));
#endif
}

}  // namespace
}  // namespace sabiyarn

#define SABIYARN_WIDE_PAIR
#include "core/kernels/linear_vnni.hpp"

namespace sabiyarn {
const LinearKernels kLinearAvx512Vnni = {"avx512_vnni", normalize, round_row, multiply, multiply_floats_avx2};
}  // namespace sabiyarn

#endif
