// csrc/core/simd/lane_pairs.hpp - eight floats as two registers of four, for CPUs whose registers hold no more.
//
// On such CPUs GCC keeps Floats8 in memory, with two loads and two stores around every operation.
#pragma once

#include <cstddef>

#include "core/simd/exact_math.hpp"
#include "core/simd/gelu.hpp"
#include "core/simd/lanes.hpp"

namespace sabiyarn {

struct FloatPair {
  Floats low, high;
};
struct IntPair {
  Ints low, high;
};

inline FloatPair operator+(const FloatPair& a, const FloatPair& b) noexcept {
  return {a.low + b.low, a.high + b.high};
}
inline FloatPair operator-(const FloatPair& a, const FloatPair& b) noexcept {
  return {a.low - b.low, a.high - b.high};
}
inline FloatPair operator*(const FloatPair& a, const FloatPair& b) noexcept {
  return {a.low * b.low, a.high * b.high};
}

inline FloatPair broadcast8(float value) noexcept { return {broadcast(value), broadcast(value)}; }
inline FloatPair load8(const float* source) noexcept { return {load(source), load(source + kLanes)}; }
inline void store8(const FloatPair& value, float* target) noexcept {
  store(value.low, target);
  store(value.high, target + kLanes);
}
inline FloatPair maximum(const FloatPair& a, const FloatPair& b) noexcept {
  return {maximum(a.low, b.low), maximum(a.high, b.high)};
}
inline FloatPair to_floats(const IntPair& value) noexcept {
  return {__builtin_convertvector(value.low, Floats), __builtin_convertvector(value.high, Floats)};
}

template <typename Math = SeparateMath, std::size_t kCount>
[[gnu::always_inline]] inline void exp_in_place(FloatPair (&x)[kCount]) noexcept {
  Floats all[2 * kCount];
  SABIYARN_UNROLL
  for (std::size_t i = 0; i < kCount; ++i) {
    all[2 * i] = x[i].low;
    all[2 * i + 1] = x[i].high;
  }
  exp_in_place<Math>(all);
  SABIYARN_UNROLL
  for (std::size_t i = 0; i < kCount; ++i) x[i] = {all[2 * i], all[2 * i + 1]};
}
inline void gelu_in_place(FloatPair& x) noexcept {
  gelu_in_place(x.low);
  gelu_in_place(x.high);
}

}  // namespace sabiyarn
