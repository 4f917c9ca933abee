// csrc/core/kernels/attention_plain.cpp - attention in plain C++, for any CPU; on ARM with what armv8-a has.
#include <cstring>

#include "core/kernels/attention_sets.hpp"
#include "core/simd/half.hpp"
#include "core/simd/lane_pairs.hpp"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#define SABIYARN_KERNEL

namespace sabiyarn {
namespace {

using Eight = FloatPair;
using sabiyarn::load8;  // beside those below

#if defined(__aarch64__)

struct Fused {
  static Floats multiply_add(const Floats& a, const Floats& b, const Floats& c) noexcept {
    return vfmaq_f32(c, a, b);
  }
  static Floats maximum(const Floats& a, const Floats& b) noexcept { return vmaxq_f32(a, b); }
};

inline FloatPair multiply_add(const FloatPair& a, const FloatPair& b, const FloatPair& c) noexcept {
  return {Fused::multiply_add(a.low, b.low, c.low), Fused::multiply_add(a.high, b.high, c.high)};
}

inline FloatPair load8(const half_bits* source) noexcept {
  const float16x8_t halves = vreinterpretq_f16_u16(vld1q_u16(source));
  return {vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)};
}

inline FloatPair load8(const std::int8_t* source) noexcept {
  const int16x8_t values = vmovl_s8(vld1_s8(source));
  return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(values))), vcvtq_f32_s32(vmovl_high_s16(values))};
}

struct KeyPairs {
  int16x8_t first[2], second[2];
};
struct ScoreSums {
  int32x4_t of[4];
};

inline KeyPairs load_pairs(const std::int8_t* first, const std::int8_t* second) noexcept {
  const int8x16_t a = vld1q_s8(first), b = vld1q_s8(second);
  return {{vmovl_s8(vget_low_s8(a)), vmovl_high_s8(a)}, {vmovl_s8(vget_low_s8(b)), vmovl_high_s8(b)}};
}

inline void add_products(ScoreSums& sums, const KeyPairs& pairs, std::int32_t two) noexcept {
  const int16x4_t queries = vreinterpret_s16_s32(vdup_n_s32(two));
  SABIYARN_UNROLL
  for (int half = 0; half < 2; ++half) {
    int32x4_t &low = sums.of[2 * half], &high = sums.of[2 * half + 1];
    low = vmlal_lane_s16(low, vget_low_s16(pairs.first[half]), queries, 0);
    high = vmlal_high_lane_s16(high, pairs.first[half], queries, 0);
    low = vmlal_lane_s16(low, vget_low_s16(pairs.second[half]), queries, 1);
    high = vmlal_high_lane_s16(high, pairs.second[half], queries, 1);
  }
}

inline void store_sums(const ScoreSums& sums, float unit, float* target) noexcept {
  SABIYARN_UNROLL
  for (int i = 0; i < 4; ++i) vst1q_f32(target + 4 * i, vmulq_n_f32(vcvtq_f32_s32(sums.of[i]), unit));
}

#else

using Fused = SeparateMath;  // there is no fused one

inline FloatPair multiply_add(const FloatPair& a, const FloatPair& b, const FloatPair& c) noexcept {
  return a * b + c;
}

inline FloatPair load8(const half_bits* source) noexcept {
  float values[8];
  for (int i = 0; i < 8; ++i) values[i] = half_to_float(source[i]);
  return load8(values);
}

inline FloatPair load8(const std::int8_t* source) noexcept {
  float values[8];
  for (int i = 0; i < 8; ++i) values[i] = source[i];
  return load8(values);
}

struct KeyPairs {
  const std::int8_t *first, *second;
};
struct ScoreSums {
  std::int32_t of[kKeyTile];
};

inline KeyPairs load_pairs(const std::int8_t* first, const std::int8_t* second) noexcept {
  return {first, second};
}

inline void add_products(ScoreSums& sums, const KeyPairs& pairs, std::int32_t two) noexcept {
  std::int16_t queries[2];
  std::memcpy(queries, &two, sizeof queries);
  for (int i = 0; i < kKeyTile; ++i) sums.of[i] += queries[0] * pairs.first[i] + queries[1] * pairs.second[i];
}

inline void store_sums(const ScoreSums& sums, float unit, float* target) noexcept {
  for (int i = 0; i < kKeyTile; ++i) target[i] = static_cast<float>(sums.of[i]) * unit;
}

#endif

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/attention_kernel.hpp"

namespace sabiyarn {
const AttentionKernels kAttentionPlain = {"plain", append, attend};
}  // namespace sabiyarn
