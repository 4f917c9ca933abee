#include "core/selection/softmax.hpp"

#include <algorithm>
#include <cstring>

#include "core/simd/dispatched.hpp"
#include "core/simd/exact_math.hpp"
#include "core/simd/instruction_sets.hpp"

namespace sabiyarn {
namespace {

constexpr std::size_t kChains = 16;
constexpr std::size_t kFlush = 512;  // floats summed before the sum moves to float64

// weights may be null.
template <typename Vector>
[[gnu::always_inline]] inline double sum_rows(std::span<const float> scores, float maximum,
                                              float* weights) noexcept {
  constexpr std::size_t kWidth = sizeof(Vector) / sizeof(float), kVectors = kChains / kWidth;
  const Vector top = Vector{} + maximum;
  double total = 0.0;
  std::size_t i = 0;
  while (i + kChains <= scores.size()) {
    Vector sums[kVectors] = {};
    const std::size_t end = std::min(scores.size() - kChains + 1, i + kFlush);
    for (; i < end; i += kChains) {
      for (std::size_t v = 0; v < kVectors; ++v) {
        Vector x;
        std::memcpy(&x, scores.data() + i + v * kWidth, sizeof x);
        x -= top;
        exp_in_place(x);
        if (weights != nullptr) std::memcpy(weights + i + v * kWidth, &x, sizeof x);
        sums[v] += x;
      }
    }
    float chains[kChains];
    std::memcpy(chains, sums, sizeof chains);
    for (std::size_t c = 0; c < 4; ++c) {
      total += static_cast<double>((chains[c] + chains[4 + c]) + (chains[8 + c] + chains[12 + c]));
    }
  }
  for (; i < scores.size(); ++i) {
    const float weight = exp_float(scores[i] - maximum);
    if (weights != nullptr) weights[i] = weight;
    total += static_cast<double>(weight);
  }
  return total;
}

#if defined(__x86_64__)

// Without "fma": fused multiply-add would change the bits.
SABIYARN_DISPATCHED("avx2")
double sum_avx2(std::span<const float> scores, float maximum, float* weights) noexcept {
  return sum_rows<Floats8>(scores, maximum, weights);
}

#endif

double sum(std::span<const float> scores, float maximum, float* weights) noexcept {
#if defined(__x86_64__)
  if (has_avx2()) return sum_avx2(scores, maximum, weights);
#endif
  return sum_rows<Floats>(scores, maximum, weights);
}

}  // namespace

double sum_of_exp(std::span<const float> scores, float maximum) noexcept {
  return sum(scores, maximum, nullptr);
}

double exp_weights(std::span<const float> scores, float maximum, float* weights) noexcept {
  return sum(scores, maximum, weights);
}

double exp_weights_baseline(std::span<const float> scores, float maximum, float* weights) noexcept {
  return sum_rows<Floats>(scores, maximum, weights);
}

}  // namespace sabiyarn
