#include "core/simd/exact_math.hpp"

#include <bit>
#include <cstdint>

namespace sabiyarn {
namespace {

// ln 2 in two parts (fdlibm, e_exp.c): the upper one has 32 significant bits, so integers times it are exact.
constexpr double kLn2High = 6.93147180369123816490e-01;
constexpr double kLn2Low = 1.90821492927058770002e-10;

double power_of_two(std::int64_t n) noexcept {
  return std::bit_cast<double>(static_cast<std::uint64_t>(n + 1023) << 52);
}

}  // namespace

double exp_double(double x) noexcept {
  if (x < -708.0) return 0.0;  // the result would be subnormal
  if (x > 709.0) x = 709.0;
  const double scaled = x * 1.44269504088896340736;
  const auto n = static_cast<std::int64_t>(scaled + (scaled < 0.0 ? -0.5 : 0.5));
  const double integer = static_cast<double>(n);
  const double r = (x - integer * kLn2High) - integer * kLn2Low;
  // Taylor series to degree 14: with |r| <= ln(2) / 2 the first term left out is below 1e-19.
  double sum = 1.0;
  for (int k = 14; k >= 1; --k) sum = sum * r / static_cast<double>(k) + 1.0;
  return sum * power_of_two(n);
}

double log_double(double x) noexcept {
  // x = 2^n * m with m in [sqrt(1/2), sqrt(2)); log m = 2 atanh(t), t = (m - 1) / (m + 1), |t| < 0.172.
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(x);
  std::int64_t n = static_cast<std::int64_t>(bits >> 52) - 1023;
  double m = std::bit_cast<double>((bits & 0xfffffffffffffULL) | (1023ULL << 52));
  if (m > 1.4142135623730951) {
    m *= 0.5;
    ++n;
  }
  const double t = (m - 1.0) / (m + 1.0);
  const double square = t * t;
  // 2 (t + t^3/3 + ... + t^23/23): the first term left out is below 1e-20.
  double sum = 0.0;
  for (int k = 23; k >= 3; k -= 2) sum = (sum + 1.0 / static_cast<double>(k)) * square;
  const double integer = static_cast<double>(n);
  return integer * kLn2High + (2.0 * t + (2.0 * t * sum + integer * kLn2Low));
}

double pow_double(double base, double exponent) noexcept {
  if (exponent == 0.0 || base == 1.0) return 1.0;
  // Integer exponents by multiplication: the result is exact while it fits, so rounding it again to fewer bits
  // is correct.
  if (exponent >= -16.0 && exponent <= 16.0 && exponent == static_cast<double>(static_cast<int>(exponent))) {
    const int count = static_cast<int>(exponent < 0.0 ? -exponent : exponent);
    double product = base;
    for (int i = 1; i < count; ++i) product *= base;
    return exponent < 0.0 ? 1.0 / product : product;
  }
  return exp_double(exponent * log_double(base));
}

}  // namespace sabiyarn
