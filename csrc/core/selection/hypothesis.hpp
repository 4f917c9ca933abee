// csrc/core/selection/hypothesis.hpp - one sequence in the making, and the score of each of its generated tokens if
// wanted.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "core/decoding/token_history.hpp"

namespace sabiyarn {

struct Hypothesis {
  // All memory is taken here: 4 bytes for each token of the prompt, 4 (8 with scores) for each that may
  // follow, up to kReservedTokens.
  Hypothesis(std::span<const TokenId> prompt, std::size_t max_new_tokens, bool keep_scores)
      : history(prompt, max_new_tokens), keeps_scores(keep_scores) {
    if (keep_scores) scores.reserve(std::min(max_new_tokens, kReservedTokens));
  }

  void append(TokenId token, float score) {
    history.append(token);
    if (keeps_scores) scores.push_back(score);
  }
  // Takes over what `other`, of the same prompt, generated.
  void copy_generated(const Hypothesis& other) {
    history.copy_generated(other.history);
    scores.assign(other.scores.begin(), other.scores.end());
  }

  TokenHistory history;
  bool keeps_scores;
  std::vector<float> scores;
};

}  // namespace sabiyarn
