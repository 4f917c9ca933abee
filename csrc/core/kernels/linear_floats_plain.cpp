// csrc/core/kernels/linear_floats_plain.cpp - products with float tiles for any CPU; on ARM with what armv8-a has.
#include "core/kernels/float_types.hpp"
#include "core/kernels/linear_sets.hpp"
#include "core/simd/fused_multiply_add.hpp"
#include "core/simd/lane_pairs.hpp"

#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#define SABIYARN_KERNEL

namespace sabiyarn {
namespace {

using Eight = FloatPair;

constexpr std::ptrdiff_t kPrefetch = 2048;  // bytes ahead of what is read

inline Eight widened(const Float32* weights) noexcept { return load8(&weights->value); }

#if defined(__aarch64__)

inline Eight widened(const Float16* weights) noexcept {
  const float16x8_t eight = vreinterpretq_f16_u16(vld1q_u16(&weights->bits));
  return {vcvt_f32_f16(vget_low_f16(eight)), vcvt_high_f32_f16(eight)};
}
inline Eight widened(const Bfloat16* weights) noexcept {
  const uint16x8_t eight = vld1q_u16(&weights->bits);
  return {vreinterpretq_f32_u32(vshll_n_u16(vget_low_u16(eight), 16)),
          vreinterpretq_f32_u32(vshll_high_n_u16(eight, 16))};
}

#else

// Four values in the low halves of 32-bit lanes.
inline Ints load_halves(const void* source) noexcept {
  std::uint16_t four __attribute__((vector_size(8)));
  std::memcpy(&four, source, sizeof four);
  return __builtin_convertvector(four, Ints);
}
inline Floats from_float16(const Float16* weights) noexcept {
  const Ints bits = load_halves(weights), magnitude = bits & 0x7fff;
  // The exponent's bias grows from 15 to 127 by a product, which also makes subnormal numbers normal.
  const Floats value = reinterpret_cast<Floats>(magnitude << 13) * 0x1p112f;
  const Ints special = (magnitude >= 0x7c00) & 0x7f800000;  // infinity and NaN
  return reinterpret_cast<Floats>(reinterpret_cast<Ints>(value) | special | (bits & 0x8000) << 16);
}
inline Eight widened(const Float16* weights) noexcept {
  return {from_float16(weights), from_float16(weights + kLanes)};
}
inline Eight widened(const Bfloat16* weights) noexcept {
  return {reinterpret_cast<Floats>(load_halves(weights) << 16),
          reinterpret_cast<Floats>(load_halves(weights + kLanes) << 16)};
}

#endif

inline Eight broadcast_load(const float* value) noexcept { return broadcast8(*value); }
inline Eight fused(const Eight& a, const Eight& b, const Eight& c) noexcept {
  return {fused_multiply_add(a.low, b.low, c.low), fused_multiply_add(a.high, b.high, c.high)};
}

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/linear_floats.hpp"

namespace sabiyarn {
void multiply_floats_plain(const TiledMatrix& weights, const float* rows, std::int64_t num_rows,
                           std::int64_t first, std::int64_t end, const LinearOutput& output) noexcept {
  multiply_floats(weights, rows, num_rows, first, end, output);
}
}  // namespace sabiyarn
