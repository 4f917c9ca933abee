// csrc/core/selection/categorical_sample.hpp - draws from softmax(scores), with or without replacement.
//
// Draws by inversion of the cumulative sum in index order. Sums over blocks of 512 weights locate a draw without a pass
// over all weights; a removal recomputes the sum of its block only. All sums have a fixed order.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace sabiyarn {

class CategoricalSampler {
 public:
  // Reserves memory for `count` scores, 4 bytes each.
  void reserve(std::size_t count);

  // Sets the weights exp(score - largest score). An empty span is allowed.
  void set_scores(std::span<const float> scores);

  // Returns the index where the cumulative weight first exceeds u * total, u in [0, 1); the number of scores if no
  // weight is left.
  std::size_t draw(double u) const noexcept;
  // Sets a weight to 0, so that the index cannot be drawn again.
  void remove(std::size_t index) noexcept;

  double total() const noexcept;

 private:
  void sum_block(std::size_t block) noexcept;

  std::vector<float> weights_;
  std::vector<double> block_sums_;
};

}  // namespace sabiyarn
