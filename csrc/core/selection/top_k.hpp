// csrc/core/selection/top_k.hpp - selects the k best of many scores in one pass, without sorting the rest.
//
// A buffer takes every score above a threshold. When it is full, the best k stay and the k-th becomes the threshold.
// Of 52050 random scores, one vector comparison per 16 rejects all but a few hundred.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace sabiyarn {

struct ScoredIndex {
  float score;
  std::int32_t index;
};

// The order of everything here: score descending, index ascending.
inline bool comes_before(const ScoredIndex& a, const ScoredIndex& b) noexcept {
  return a.score != b.score ? a.score > b.score : a.index < b.index;
}

class TopK {
 public:
  // Begins a selection of the best `k` >= 1. Memory grows to the largest k ever asked for, then stays.
  void begin(std::size_t k);

  // Offers scores[i] + offset under the index first_index + i. Calls must have ascending indices. -inf is ignored.
  void offer(std::span<const float> scores, float offset, std::int32_t first_index);

  // Sorts and returns the best: k of them, or all that are above -inf.
  std::span<const ScoredIndex> finish();

 private:
  void shrink();

  std::vector<ScoredIndex> buffer_;
  std::size_t k_ = 0;
  std::size_t count_ = 0;
  float threshold_ = 0.0f;
};

}  // namespace sabiyarn
