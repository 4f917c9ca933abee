#include "core/simd/half.hpp"

#include <bit>

#include "core/simd/dispatched.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace sabiyarn {

half_bits float_to_half(float value) noexcept {
  const std::uint32_t bits = std::bit_cast<std::uint32_t>(value);
  const std::uint32_t sign = (bits >> 16) & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) {  // NaN: keep the upper payload bits, set the quiet bit
    return static_cast<half_bits>(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
  }
  if (magnitude >= 0x477ff000u) {  // 65520 and above round to infinity
    return static_cast<half_bits>(sign | 0x7c00u);
  }
  if (magnitude >= 0x38800000u) {  // 2^-14 and above: a normal half
    // Rebias the exponent (127 -> 15) and round the 13 bits that fall away, ties to even.
    const std::uint32_t rounded = magnitude + 0x0fffu + ((magnitude >> 13) & 1u);
    return static_cast<half_bits>(sign | ((rounded - (112u << 23)) >> 13));
  }
  if (magnitude < 0x33000000u) {  // below 2^-25: rounds to zero
    return static_cast<half_bits>(sign);
  }
  // Subnormal half: the mantissa with its hidden bit, shifted into units of 2^-24.
  const std::uint32_t shift = 126u - (magnitude >> 23);
  const std::uint32_t mantissa = (magnitude & 0x7fffffu) | 0x800000u;
  const std::uint32_t kept = mantissa >> shift;
  const std::uint32_t rest = mantissa & ((1u << shift) - 1u);
  const std::uint32_t half_way = 1u << (shift - 1u);
  const std::uint32_t round_up = (rest > half_way || (rest == half_way && (kept & 1u) != 0u)) ? 1u : 0u;
  return static_cast<half_bits>(sign | (kept + round_up));
}

float half_to_float(half_bits bits) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t exponent = (bits >> 10) & 0x1fu;
  const std::uint32_t mantissa = bits & 0x3ffu;
  if (exponent == 0x1fu) {  // infinity, or NaN (quieted)
    const std::uint32_t quiet = mantissa != 0u ? 0x400000u : 0u;
    return std::bit_cast<float>(sign | 0x7f800000u | quiet | (mantissa << 13));
  }
  if (exponent != 0u) {
    return std::bit_cast<float>(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  }
  // Zero or subnormal: mantissa * 2^-24 is exact in float32.
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return std::bit_cast<float>(std::bit_cast<std::uint32_t>(magnitude) | sign);
}

namespace {

void float_to_half_scalar(const float* source, half_bits* target, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) target[i] = float_to_half(source[i]);
}

void half_to_float_scalar(const half_bits* source, float* target, std::size_t count) noexcept {
  for (std::size_t i = 0; i < count; ++i) target[i] = half_to_float(source[i]);
}

#if defined(__x86_64__)

SABIYARN_DISPATCHED("avx,f16c")
void float_to_half_f16c(const float* source, half_bits* target, std::size_t count) noexcept {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(source + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(target + i), halves);
  }
  float_to_half_scalar(source + i, target + i, count - i);
}

SABIYARN_DISPATCHED("avx,f16c")
void half_to_float_f16c(const half_bits* source, float* target, std::size_t count) noexcept {
  std::size_t i = 0;
  for (; i + 8 <= count; i += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + i));
    _mm256_storeu_ps(target + i, _mm256_cvtph_ps(halves));
  }
  half_to_float_scalar(source + i, target + i, count - i);
}

// The compiler's check reports "avx" only if the system saves AVX state (xgetbv). F16C is read from CPUID leaf 1,
// because Clang's check does not know its name.
bool has_f16c() noexcept {
  unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __builtin_cpu_supports("avx") != 0 && __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 &&
         (ecx & bit_F16C) != 0;
}

#elif defined(__aarch64__)

// FCVTN and FCVTL between half and single precision belong to the armv8-a baseline. No fp16 arithmetic is used.
void float_to_half_neon(const float* source, half_bits* target, std::size_t count) noexcept {
  std::size_t i = 0;
  for (; i + 4 <= count; i += 4) {
    vst1_u16(target + i, vreinterpret_u16_f16(vcvt_f16_f32(vld1q_f32(source + i))));
  }
  float_to_half_scalar(source + i, target + i, count - i);
}

void half_to_float_neon(const half_bits* source, float* target, std::size_t count) noexcept {
  std::size_t i = 0;
  for (; i + 4 <= count; i += 4) {
    vst1q_f32(target + i, vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(source + i))));
  }
  half_to_float_scalar(source + i, target + i, count - i);
}

#endif

}  // namespace

void float_to_half(const float* source, half_bits* target, std::size_t count) noexcept {
#if defined(__x86_64__)
  static const bool f16c = has_f16c();
  if (f16c) return float_to_half_f16c(source, target, count);
#elif defined(__aarch64__)
  return float_to_half_neon(source, target, count);
#endif
  float_to_half_scalar(source, target, count);
}

void half_to_float(const half_bits* source, float* target, std::size_t count) noexcept {
#if defined(__x86_64__)
  static const bool f16c = has_f16c();
  if (f16c) return half_to_float_f16c(source, target, count);
#elif defined(__aarch64__)
  return half_to_float_neon(source, target, count);
#endif
  half_to_float_scalar(source, target, count);
}

const char* half_conversion_path() noexcept {
#if defined(__x86_64__)
  return has_f16c() ? "f16c" : "scalar";
#elif defined(__aarch64__)
  return "neon";
#else
  return "scalar";
#endif
}

}  // namespace sabiyarn
