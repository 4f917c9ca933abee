// csrc/core/selection/candidates.hpp - the tokens of one row that can still be drawn, by ascending id.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/decoding/token_history.hpp"
#include "core/selection/top_k.hpp"

namespace sabiyarn {

class Candidates {
 public:
  // Reserves memory for rows of `vocab_size` ids, 8 bytes each.
  void reserve(std::size_t vocab_size);

  std::size_t size() const noexcept { return size_; }
  std::span<const TokenId> ids() const noexcept { return {ids_.data(), size_}; }
  std::span<const float> scores() const noexcept { return {scores_.data(), size_}; }
  std::span<float> scores() noexcept { return {scores_.data(), size_}; }
  float maximum() const noexcept;  // size() must not be 0

  void clear() noexcept { size_ = 0; }

  // Collects all tokens above -inf, their scores divided by the temperature.
  void gather(std::span<const float> scores, float temperature);

  // gather(), then top_k: removes tokens whose score is below the k-th largest; ties with it stay. One pass finds the
  // k-th score, one collects. Source: Fan et al., arXiv 1805.04833, section 5.
  void gather_top_k(std::span<const float> scores, float temperature, std::size_t k, TopK& selection);

  template <typename Predicate>  // bool(place)
  void keep_if(Predicate kept) {
    std::size_t count = 0;
    for (std::size_t i = 0; i < size_; ++i) {
      ids_[count] = ids_[i];
      scores_[count] = scores_[i];
      count += kept(i) ? 1u : 0u;
    }
    size_ = count;
  }

 private:
  void collect(std::span<const float> scores, float cut);

  std::vector<TokenId> ids_;
  std::vector<float> scores_;
  std::size_t size_ = 0;  // used entries of both vectors
};

}  // namespace sabiyarn
