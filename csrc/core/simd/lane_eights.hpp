// csrc/core/simd/lane_eights.hpp - eight floats in one register of AVX: the functions of lane_pairs.hpp for AVX2.
//
// Define SABIYARN_KERNEL, the attributes of a function for AVX2, before including this file. The functions have
// internal linkage.
#pragma once

#include <immintrin.h>

#include "core/simd/lanes.hpp"

namespace sabiyarn {
namespace {

SABIYARN_KERNEL inline Floats8 broadcast8(float value) noexcept { return _mm256_set1_ps(value); }
SABIYARN_KERNEL inline Floats8 load8(const float* source) noexcept { return _mm256_loadu_ps(source); }
SABIYARN_KERNEL inline void store8(Floats8 value, float* target) noexcept { _mm256_storeu_ps(target, value); }
SABIYARN_KERNEL inline Floats8 maximum(Floats8 a, Floats8 b) noexcept { return a > b ? a : b; }
SABIYARN_KERNEL inline Floats8 to_floats(Ints8 value) noexcept {
  return __builtin_convertvector(value, Floats8);
}

}  // namespace
}  // namespace sabiyarn
