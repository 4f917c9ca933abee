// csrc/core/simd/half.hpp - IEEE 754 binary16 ("float16") as stored bits, and conversions to and from float32.
//
// Rounding is to nearest, ties to even; subnormals, infinities and NaN are kept (a NaN stays a NaN, quieted).
// Every path (scalar, F16C, NEON) gives the same bits.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sabiyarn {

using half_bits = std::uint16_t;

// Portable conversions of one value. They define the bits that every vector path must give.
half_bits float_to_half(float value) noexcept;
float half_to_float(half_bits bits) noexcept;

// Arrays of `count` values. Source and target must not overlap. The fastest path of this CPU is chosen at run time.
void float_to_half(const float* source, half_bits* target, std::size_t count) noexcept;
void half_to_float(const half_bits* source, float* target, std::size_t count) noexcept;

// The path chosen on this CPU: "f16c", "neon" or "scalar".
const char* half_conversion_path() noexcept;

}  // namespace sabiyarn
