// csrc/core/kernels/attention_plain.cpp - attention in plain C++, for any CPU; on ARM with what armv8-a has.
#include <utility>

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

inline FloatPair multiply_add(const FloatPair& a, const FloatPair& b, const FloatPair& c) noexcept {
  return {vfmaq_f32(c.low, a.low, b.low), vfmaq_f32(c.high, a.high, b.high)};
}

inline FloatPair load8(const half_bits* source) noexcept {
  const float16x8_t halves = vreinterpretq_f16_u16(vld1q_u16(source));
  return {vcvt_f32_f16(vget_low_f16(halves)), vcvt_high_f32_f16(halves)};
}

inline FloatPair load8(const std::int8_t* source) noexcept {
  const int16x8_t values = vmovl_s8(vld1_s8(source));
  return {vcvtq_f32_s32(vmovl_s16(vget_low_s16(values))), vcvtq_f32_s32(vmovl_high_s16(values))};
}

inline FloatPair sums_of(const FloatPair* v) noexcept {
  const auto sum = [v](int i) { return vaddq_f32(v[i].low, v[i].high); };
  return {vpaddq_f32(vpaddq_f32(sum(0), sum(1)), vpaddq_f32(sum(2), sum(3))),
          vpaddq_f32(vpaddq_f32(sum(4), sum(5)), vpaddq_f32(sum(6), sum(7)))};
}

// Of four vectors of four.
inline void transpose(Floats& a, Floats& b, Floats& c, Floats& d) noexcept {
  const float32x4_t ab_even = vtrn1q_f32(a, b), ab_odd = vtrn2q_f32(a, b);
  const float32x4_t cd_even = vtrn1q_f32(c, d), cd_odd = vtrn2q_f32(c, d);
  a = vcombine_f32(vget_low_f32(ab_even), vget_low_f32(cd_even));
  b = vcombine_f32(vget_low_f32(ab_odd), vget_low_f32(cd_odd));
  c = vcombine_f32(vget_high_f32(ab_even), vget_high_f32(cd_even));
  d = vcombine_f32(vget_high_f32(ab_odd), vget_high_f32(cd_odd));
}

#else

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

inline FloatPair sums_of(const FloatPair* v) noexcept {
  float sums[8];
  for (int i = 0; i < 8; ++i) {
    const Floats sum = v[i].low + v[i].high;
    sums[i] = (sum[0] + sum[1]) + (sum[2] + sum[3]);
  }
  return load8(sums);
}

// Of four vectors of four.
inline void transpose(Floats& a, Floats& b, Floats& c, Floats& d) noexcept {
  const Floats rows[4] = {a, b, c, d};
  a = Floats{rows[0][0], rows[1][0], rows[2][0], rows[3][0]};
  b = Floats{rows[0][1], rows[1][1], rows[2][1], rows[3][1]};
  c = Floats{rows[0][2], rows[1][2], rows[2][2], rows[3][2]};
  d = Floats{rows[0][3], rows[1][3], rows[2][3], rows[3][3]};
}

#endif

inline void transpose(FloatPair* v) noexcept {
  transpose(v[0].low, v[1].low, v[2].low, v[3].low);
  transpose(v[4].high, v[5].high, v[6].high, v[7].high);
  transpose(v[0].high, v[1].high, v[2].high, v[3].high);
  transpose(v[4].low, v[5].low, v[6].low, v[7].low);
  for (int i = 0; i < 4; ++i) std::swap(v[i].high, v[i + 4].low);
}

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/attention_kernel.hpp"

namespace sabiyarn {
const AttentionKernels kAttentionPlain = {"plain", append, attend};
}  // namespace sabiyarn
