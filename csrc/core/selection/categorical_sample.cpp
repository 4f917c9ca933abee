#include "core/selection/categorical_sample.hpp"

#include <algorithm>

#include "core/selection/softmax.hpp"

namespace sabiyarn {
namespace {

constexpr std::size_t kBlock = 512;

}  // namespace

void CategoricalSampler::reserve(std::size_t count) {
  weights_.reserve(count);
  block_sums_.reserve(count / kBlock + 1);
}

void CategoricalSampler::set_scores(std::span<const float> scores) {
  weights_.resize(scores.size());
  block_sums_.resize((scores.size() + kBlock - 1) / kBlock);
  if (scores.empty()) return;
  float maximum = scores[0];
  for (const float score : scores) maximum = score > maximum ? score : maximum;
  exp_weights(scores, maximum, weights_.data());
  for (std::size_t block = 0; block < block_sums_.size(); ++block) sum_block(block);
}

void CategoricalSampler::sum_block(std::size_t block) noexcept {
  const std::size_t end = std::min(weights_.size(), (block + 1) * kBlock);
  double chains[4] = {};  // four additions at a time instead of one after the other
  std::size_t i = block * kBlock;
  for (; i + 4 <= end; i += 4) {
    for (std::size_t c = 0; c < 4; ++c) chains[c] += static_cast<double>(weights_[i + c]);
  }
  for (; i < end; ++i) chains[0] += static_cast<double>(weights_[i]);
  block_sums_[block] = (chains[0] + chains[1]) + (chains[2] + chains[3]);
}

double CategoricalSampler::total() const noexcept {
  double sum = 0.0;
  for (const double block : block_sums_) sum += block;
  return sum;
}

std::size_t CategoricalSampler::draw(double u) const noexcept {
  const double target = u * total();
  // If rounding keeps the sum at or below the target, take the last block and the last index with a weight.
  std::size_t block = block_sums_.size();
  double before = 0.0, through = 0.0;
  for (std::size_t i = 0; i < block_sums_.size() && through <= target; ++i) {
    if (block_sums_[i] == 0.0) continue;
    block = i;
    before = through;
    through += block_sums_[i];
  }
  std::size_t index = weights_.size();
  for (std::size_t i = block * kBlock;
       i < std::min(weights_.size(), (block + 1) * kBlock) && before <= target; ++i) {
    if (weights_[i] == 0.0f) continue;
    index = i;
    before += static_cast<double>(weights_[i]);
  }
  return index;
}

void CategoricalSampler::remove(std::size_t index) noexcept {
  weights_[index] = 0.0f;
  sum_block(index / kBlock);
}

}  // namespace sabiyarn
