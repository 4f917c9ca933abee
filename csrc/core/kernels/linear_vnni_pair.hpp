// csrc/core/kernels/linear_vnni_pair.hpp - what two tiles hold of four inputs, and their sums, in two registers of 256
// bits: the Pair of linear_vnni.hpp.
//
// Included behind the definitions of SABIYARN_KERNEL and dot_products.
#pragma once

#include <immintrin.h>

#include <cstddef>
#include <cstdint>

namespace sabiyarn {
namespace {

struct Pair {
  __m256i first, second;
};

SABIYARN_KERNEL inline Pair broadcast_pair(std::int32_t value) noexcept {
  return {_mm256_set1_epi32(value), _mm256_set1_epi32(value)};
}
SABIYARN_KERNEL inline Pair load_pair(const std::byte* first, std::ptrdiff_t tile_stride) noexcept {
  return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(first)),
          _mm256_loadu_si256(reinterpret_cast<const __m256i*>(first + tile_stride))};
}
SABIYARN_KERNEL inline Pair biased(const Pair& bytes) noexcept {
  const __m256i bias = _mm256_set1_epi8(-128);
  return {_mm256_xor_si256(bytes.first, bias), _mm256_xor_si256(bytes.second, bias)};
}
SABIYARN_KERNEL inline Pair add_pairs(const Pair& a, const Pair& b) noexcept {
  return {_mm256_add_epi32(a.first, b.first), _mm256_add_epi32(a.second, b.second)};
}
SABIYARN_KERNEL inline __m256i first_of(const Pair& pair) noexcept { return pair.first; }
SABIYARN_KERNEL inline __m256i second_of(const Pair& pair) noexcept { return pair.second; }
[[gnu::always_inline]] SABIYARN_KERNEL inline void dot_products(Pair& sums, const Pair& unsigned_bytes,
                                                                std::int32_t signed_bytes) noexcept {
  const __m256i broadcast = _mm256_set1_epi32(signed_bytes);
  dot_products(sums.first, unsigned_bytes.first, broadcast);
  dot_products(sums.second, unsigned_bytes.second, broadcast);
}

}  // namespace
}  // namespace sabiyarn
