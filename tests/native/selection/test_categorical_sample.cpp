// Draws against a walk over the cumulative weights, with replacement and without, over one block and several.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "check.hpp"
#include "core/selection/categorical_sample.hpp"
#include "core/selection/random.hpp"

using namespace sabiyarn;

namespace {

// The index by walking, or `weights.size()` where the outcome hangs on rounding.
std::size_t walk(const std::vector<double>& weights, double u) {
  const double target = u * std::accumulate(weights.begin(), weights.end(), 0.0);
  double cumulative = 0.0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    cumulative += weights[i];
    if (std::fabs(cumulative - target) < 1e-5 * target) return weights.size();
    if (cumulative > target) return i;
  }
  return weights.size();
}

}  // namespace

int main() {
  CategoricalSampler draw;
  int compared = 0;
  for (const std::size_t count : {1u, 2u, 511u, 512u, 513u, 3000u}) {
    std::vector<float> scores(count);
    std::vector<double> weights(count);
    for (std::size_t i = 0; i < count; ++i) {
      const double u = uniform(1, 7, static_cast<std::uint32_t>(i));
      scores[i] = u < 0.3 ? -std::numeric_limits<float>::infinity() : static_cast<float>(u * 4.0);
    }
    scores[count - 1] = 4.0f;
    for (std::size_t i = 0; i < count; ++i) weights[i] = std::exp(static_cast<double>(scores[i]) - 4.0);
    draw.set_scores(scores);
    CHECK(std::fabs(draw.total() - std::accumulate(weights.begin(), weights.end(), 0.0)) <
          1e-5 * draw.total());
    for (std::uint32_t step = 0; step < 200; ++step) {
      const double u = step == 0 ? 0.0 : step == 1 ? 1.0 - 0x1p-53 : uniform(2, 0, step);
      const std::size_t index = draw.draw(u);
      CHECK(index < count && weights[index] > 0.0);
      const std::size_t expected = walk(weights, u);
      if (expected == count) continue;
      CHECK(index == expected);
      ++compared;
    }
  }
  CHECK(compared > 1000);

  // Without replacement every index with weight comes once, then none.
  const std::vector<float> few{0.0f, -std::numeric_limits<float>::infinity(), 1.0f, -2.0f};
  draw.set_scores(few);
  std::vector<std::size_t> seen;
  for (std::uint32_t step = 0; step < 3; ++step) {
    seen.push_back(draw.draw(uniform(3, 0, step)));
    draw.remove(seen.back());
  }
  std::sort(seen.begin(), seen.end());
  CHECK((seen == std::vector<std::size_t>{0, 2, 3}));
  CHECK(draw.draw(0.5) == few.size());
  draw.set_scores({});
  CHECK(draw.draw(0.5) == 0);
  return outcome();
}
