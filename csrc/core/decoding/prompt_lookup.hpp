// csrc/core/decoding/prompt_lookup.hpp - guesses the next tokens by copying from the text so far.
//
// Texts that copy from their prompt repeat its n-grams. So the ids behind an earlier occurrence of the newest
// n-gram are good guesses. All guesses are verified in one forward pass. Source: Saxena, "Prompt lookup decoding",
// 2023.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "core/decoding/token_history.hpp"

namespace sabiyarn {

// Finds the first earlier occurrence of the newest n ids of `history`, for n = max_ngram down to 1. Writes up to
// `max_guesses` of the ids behind it to `guesses` and returns their number; 0 if nothing matches.
std::size_t look_up(std::span<const TokenId> history, std::size_t max_ngram, std::size_t max_guesses,
                    TokenId* guesses) noexcept;

// Guesses the tokens of one text for as long as that pays. Each step looks a guess up, which costs next to nothing, and
// compares it with the token that comes: how often they are equal decides how many guesses are run.
class Guesser {
 public:
  Guesser(std::size_t max_guesses, std::size_t max_ngram) : max_ngram_(max_ngram), guesses_(max_guesses) {}

  // Looks guesses up for what follows `history`. Returns how many of them to run: at most `room`, and no more than pay
  // in a run that `rows` rows share.
  std::size_t guess(std::span<const TokenId> history, std::size_t rows, std::size_t room) noexcept;

  // What was looked up last: one at least if there is any, also where none is to be run.
  std::span<const TokenId> guesses() const noexcept { return {guesses_.data(), found_}; }

  // Says whether the next guess of these was the token that came.
  void note(bool right) noexcept { rate_ += ((right ? 1.0f : 0.0f) - rate_) / kMemory; }

  // Guesses that were run.
  std::size_t num_run() const noexcept { return num_run_; }

  // How many guesses pay beside `rows` rows, this one included.
  std::size_t worth(std::size_t rows) const noexcept;

 private:
  static constexpr float kMemory = 8.0f;  // guesses after which the rate has mostly forgotten what was before
  static constexpr float kFirstRate = 0.4f;  // three wrong guesses at the beginning, and no more are run

  std::size_t max_ngram_;
  std::size_t found_ = 0;
  std::size_t num_run_ = 0;
  float rate_ = kFirstRate;  // of guesses that are right, if those before them are
  std::vector<TokenId> guesses_;
};

}  // namespace sabiyarn
