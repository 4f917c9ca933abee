#include "core/selection/candidates.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/simd/lanes.hpp"

namespace sabiyarn {
namespace {

constexpr float kFarFromSubnormal = 0x1p-100f;

}  // namespace

void Candidates::reserve(std::size_t vocab_size) {
  if (ids_.size() >= vocab_size) return;
  ids_.resize(vocab_size);
  scores_.resize(vocab_size);
}

float Candidates::maximum() const noexcept {
  float result = scores_[0];
  for (const float score : scores()) result = score > result ? score : result;
  return result;
}

// Collects the tokens with score >= cut and score > -inf.
void Candidates::collect(std::span<const float> scores, float cut) {
  constexpr std::size_t kBlock = 4 * kLanes;
  constexpr float kLowest = std::numeric_limits<float>::lowest();
  reserve(scores.size());
  cut = std::max(cut, kLowest);
  size_ = 0;
  const auto take = [&](std::size_t i) {
    ids_[size_] = static_cast<TokenId>(i);
    scores_[size_] = scores[i];
    size_ += scores[i] >= cut ? 1u : 0u;
  };
  std::size_t i = 0;
  for (; i + kBlock <= scores.size(); i += kBlock) {
    const float* block = scores.data() + i;
    if (!any((load(block) >= cut) | (load(block + kLanes) >= cut) | (load(block + 2 * kLanes) >= cut) |
             (load(block + 3 * kLanes) >= cut))) {
      continue;
    }
    for (std::size_t lane = 0; lane < kBlock; ++lane) take(i + lane);
  }
  for (; i < scores.size(); ++i) take(i);
}

void Candidates::gather(std::span<const float> scores, float temperature) {
  collect(scores, std::numeric_limits<float>::lowest());
  if (temperature == 1.0f) return;
  for (float& score : this->scores()) score /= temperature;
}

void Candidates::gather_top_k(std::span<const float> scores, float temperature, std::size_t k,
                              TopK& selection) {
  selection.begin(std::min(k, scores.size()));
  selection.offer(scores, 0.0f, 0);
  const auto best = selection.finish();
  if (best.size() < k) return gather(scores, temperature);  // the k-th is -inf: nothing is below it
  const float kth = best.back().score;
  if (temperature == 1.0f) return collect(scores, kth);
  const float cut = kth / temperature;
  // Division can round a slightly smaller score to the k-th's quotient. So scores within two units in the last
  // place are collected too, divided, and cut exactly. For subnormal quotients this does not do: many scores share
  // one.
  if (std::fabs(kth) < kFarFromSubnormal || std::fabs(cut) < kFarFromSubnormal) {
    gather(scores, temperature);
  } else {
    collect(scores, kth - std::fabs(kth) * 0x1p-22f);
    for (float& score : this->scores()) score /= temperature;
  }
  keep_if([&](std::size_t i) { return scores_[i] >= cut; });
}

}  // namespace sabiyarn
