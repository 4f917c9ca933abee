// csrc/core/selection/hypothesis.hpp - one unfinished sequence and, on request, the score of each generated token.
#pragma once

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

#include "core/decoding/token_history.hpp"

namespace sabiyarn {

struct Hypothesis {
  // Allocates all memory: 4 bytes for each prompt token, and 4 (8 with scores) for each of up to kReservedTokens new
  // ones.
  Hypothesis(std::span<const TokenId> prompt, std::size_t max_new_tokens, bool keep_scores)
      : history(prompt, max_new_tokens), keeps_scores(keep_scores) {
    if (keep_scores) scores.reserve(std::min(max_new_tokens, kReservedTokens));
  }

  void append(TokenId token, float score) {
    history.append(token);
    if (keeps_scores) scores.push_back(score);
  }
  // Replaces the generated tokens by those of `other`, which has the same prompt.
  void copy_generated(const Hypothesis& other) {
    history.copy_generated(other.history);
    scores.assign(other.scores.begin(), other.scores.end());
  }

  TokenHistory history;
  bool keeps_scores;
  std::vector<float> scores;
};

}  // namespace sabiyarn
