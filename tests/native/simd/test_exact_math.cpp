// One value and an array of values must have the same bits, and both those of every other platform.
#include <bit>
#include <cmath>
#include <cstdint>

#include "check.hpp"
#include "core/simd/exact_math.hpp"

using namespace sabiyarn;

namespace {

// FNV-1a over the bits of exp_float on multiples of 2^-10, made by this code on x86-64.
std::uint64_t digest_of_exp() {
  std::uint64_t hash = 0xcbf29ce484222325ULL;
  for (int i = -89000; i < 90000; ++i) {
    const std::uint32_t bits = std::bit_cast<std::uint32_t>(exp_float(static_cast<float>(i) * 0x1p-10f));
    hash = (hash ^ bits) * 0x100000001b3ULL;
  }
  return hash;
}

}  // namespace

int main() {
  for (float x = -90.0f; x < 88.0f; x += 0.37f) {
    Floats lanes{x, 0.0f, -1.0f, x};
    exp_in_place(lanes);
    CHECK(std::bit_cast<std::uint32_t>(float{lanes[3]}) == std::bit_cast<std::uint32_t>(exp_float(x)));
    CHECK(float{lanes[1]} == 1.0f);
    const double exact = std::exp(static_cast<double>(x));
    if (x > kExpUnderflow) CHECK(std::fabs(static_cast<double>(exp_float(x)) - exact) < 1.3e-7 * exact);
  }
  CHECK(digest_of_exp() == 0x8fc2785893c9ffb4ULL);
  for (double x = 1e-3; x < 1e6; x *= 1.7) {
    CHECK(std::fabs(log_double(x) - std::log(x)) <= 1e-15 * (1.0 + std::fabs(std::log(x))));
    CHECK(std::fabs(exp_double(log_double(x)) - x) <= 1e-14 * x);
  }
  CHECK(exp_double(-1000.0) == 0.0);
  CHECK(pow_double(257.0, 3.0) == 257.0 * 257.0 * 257.0);
  CHECK(pow_double(5.0, -2.0) == 1.0 / 25.0);
  return outcome();
}
