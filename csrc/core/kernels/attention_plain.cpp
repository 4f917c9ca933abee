// csrc/core/kernels/attention_plain.cpp - attention in plain C++, for any CPU; on ARM with what armv8-a has.
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

#endif

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/attention_kernel.hpp"

namespace sabiyarn {
const AttentionKernels kAttentionPlain = {"plain", append, attend};
}  // namespace sabiyarn
