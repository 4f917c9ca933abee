#include "core/selection/row_math.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "core/selection/softmax.hpp"
#include "core/simd/exact_math.hpp"
#include "core/simd/lanes.hpp"

namespace sabiyarn {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr std::size_t kBlock = 4 * kLanes;  // four independent chains hide the latency of one

std::string message(std::size_t row, const std::string& what) {
  return "scores: row " + std::to_string(row) + " " + what;
}

[[noreturn]] void refuse(std::size_t row, const std::string& what) {
  throw std::invalid_argument(message(row, what));
}

struct Extreme {
  float maximum;
  bool has_nan;
};

Extreme find_extreme(std::span<const float> scores) noexcept {
  Floats top[4] = {broadcast(-kInfinity), broadcast(-kInfinity), broadcast(-kInfinity),
                   broadcast(-kInfinity)};
  Ints nan[4] = {};
  std::size_t i = 0;
  for (; i + kBlock <= scores.size(); i += kBlock) {
    for (std::size_t chain = 0; chain < 4; ++chain) {
      const Floats x = load(scores.data() + i + chain * kLanes);
      top[chain] = maximum(x, top[chain]);
      nan[chain] |= x != x;
    }
  }
  const Floats best = maximum(maximum(top[0], top[1]), maximum(top[2], top[3]));
  Extreme result{std::max(std::max(best[0], best[1]), std::max(best[2], best[3])),
                 any(nan[0] | nan[1] | nan[2] | nan[3])};
  for (; i < scores.size(); ++i) {
    result.maximum = scores[i] > result.maximum ? scores[i] : result.maximum;
    result.has_nan = result.has_nan || std::isnan(scores[i]);
  }
  return result;
}

float extreme_or_throw(std::span<const float> scores, std::size_t row) {
  const Extreme extreme = find_extreme(scores);
  if (extreme.has_nan) {
    const auto where = std::find_if(scores.begin(), scores.end(), [](float x) { return std::isnan(x); });
    refuse(row, "holds NaN (first at token id " + std::to_string(where - scores.begin()) + ")");
  }
  return extreme.maximum;
}

}  // namespace

float checked_maximum(std::span<const float> scores, std::size_t row) {
  const float maximum = extreme_or_throw(scores, row);
  if (maximum == kInfinity) refuse(row, "holds +inf: it has no probabilities");
  return maximum;
}

void refuse_removed_row(std::size_t row) {
  throw NoTokenLeft(message(row, "is -inf for every token: no token is left to choose"));
}

TokenId checked_argmax(std::span<const float> scores, std::size_t row) {
  const float maximum = extreme_or_throw(scores, row);
  if (maximum == -kInfinity) refuse_removed_row(row);
  const Floats wanted = broadcast(maximum);
  std::size_t i = 0;
  for (; i + kBlock <= scores.size(); i += kBlock) {
    const float* block = scores.data() + i;
    if (any((load(block) == wanted) | (load(block + kLanes) == wanted) |
            (load(block + 2 * kLanes) == wanted) | (load(block + 3 * kLanes) == wanted))) {
      break;
    }
  }
  while (scores[i] != maximum) ++i;
  return static_cast<TokenId>(i);
}

double log_sum_exp(std::span<const float> scores, float maximum) noexcept {
  return log_double(sum_of_exp(scores, maximum));
}

void log_softmax(std::span<float> scores, std::size_t row) {
  const float maximum = checked_maximum(scores, row);
  if (maximum == -kInfinity) refuse_removed_row(row);
  const float log_sum = static_cast<float>(log_sum_exp(scores, maximum));
  for (float& score : scores) score = (score - maximum) - log_sum;
}

}  // namespace sabiyarn
