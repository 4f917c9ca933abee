// csrc/core/simd/lane_pairs.hpp - eight floats as two registers of four, for CPUs whose registers hold no more.
//
// On such CPUs GCC keeps Floats8 in memory, with two loads and two stores around every operation.
#pragma once

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

template <typename Math = SeparateMath>
inline void exp_in_place(FloatPair& x) noexcept {
  exp_in_place<Math>(x.low);
  exp_in_place<Math>(x.high);
}
inline void gelu_in_place(FloatPair& x) noexcept {
  gelu_in_place(x.low);
  gelu_in_place(x.high);
}

}  // namespace sabiyarn
