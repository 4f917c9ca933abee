// csrc/core/selection/categorical_sample.hpp - draws from softmax(scores), with or without replacement, by inversion in
// index order.
//
// Sums over blocks of 512 weights find the place of a draw without walking over all of them; a removal renews
// the sum of its block only. All sums have a fixed order.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace sabiyarn {

class CategoricalSampler {
 public:
  // Memory for that many scores, 4 bytes each.
  void reserve(std::size_t count);

  // Weights exp(score - largest score). An empty span is allowed.
  void set_scores(std::span<const float> scores);

  // The index where the cumulative weight first exceeds u times the total, u in [0, 1); the number of scores
  // if no weight is left.
  std::size_t draw(double u) const noexcept;
  // That index cannot be drawn again.
  void remove(std::size_t index) noexcept;

  double total() const noexcept;

 private:
  void sum_block(std::size_t block) noexcept;

  std::vector<float> weights_;
  std::vector<double> block_sums_;
};

}  // namespace sabiyarn
