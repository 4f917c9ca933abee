// The path of this CPU against the baseline, bit for bit, for lengths around the vector width and the blocks
// of the sum.
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "check.hpp"
#include "core/selection/random.hpp"
#include "core/selection/softmax.hpp"

using namespace sabiyarn;

int main() {
  for (const std::size_t count : {1u, 3u, 15u, 16u, 17u, 31u, 511u, 512u, 513u, 1040u, 52050u}) {
    std::vector<float> scores(count), weights(count), expected(count);
    double exact = 0.0;
    for (std::size_t i = 0; i < count; ++i) {
      const double u = uniform(2, 0, static_cast<std::uint32_t>(i));
      scores[i] = u < 0.1 ? -std::numeric_limits<float>::infinity() : static_cast<float>(u * 120.0 - 120.0);
      exact += std::exp(static_cast<double>(scores[i]));
    }
    const double sum = exp_weights(scores, 0.0f, weights.data());
    CHECK(std::bit_cast<std::uint64_t>(sum) ==
          std::bit_cast<std::uint64_t>(exp_weights_baseline(scores, 0.0f, expected.data())));
    CHECK(sum == sum_of_exp(scores, 0.0f));
    for (std::size_t i = 0; i < count; ++i) {
      CHECK(std::bit_cast<std::uint32_t>(weights[i]) == std::bit_cast<std::uint32_t>(expected[i]));
    }
    CHECK(std::fabs(sum - exact) <= 1e-6 * exact + 1e-37);
  }
  return outcome();
}
