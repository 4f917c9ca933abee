// csrc/core/decoding/prompt_lookup.hpp - guesses the next tokens by copying from the text so far.
//
// Texts that copy from their prompt repeat its n-grams. So the ids behind an earlier occurrence of the newest
// n-gram are good guesses. All guesses are verified in one forward pass. Source: Saxena, "Prompt lookup decoding",
// 2023.
#pragma once

#include <array>
#include <cstddef>
#include <span>
#include <vector>

#include "core/decoding/token_history.hpp"

namespace sabiyarn {

struct LookupMatch {
  std::size_t ngram = 0;  // ids of the n-gram that was found again
  std::size_t count = 0;  // guesses: the ids behind it; 0 if nothing matches
};

// Finds the first earlier occurrence of the newest n ids of `history`, for n = max_ngram down to 1. Writes up to
// `max_guesses` of the ids behind it to `guesses`.
LookupMatch look_up(std::span<const TokenId> history, std::size_t max_ngram, std::size_t max_guesses,
                    TokenId* guesses) noexcept;

// Guesses the tokens of one text for as long as that pays. Each step looks a guess up, which costs next to nothing, and
// compares it with the token that comes, also where no guess is run. How often they are equal, for each length of the
// n-gram, decides how many guesses are run; an account of what wrong ones cost bounds the loss.
class Guesser {
 public:
  Guesser(std::size_t max_guesses, std::size_t max_ngram) : max_ngram_(max_ngram), guesses_(max_guesses) {}

  // Looks guesses up for what follows `history`. Returns how many of them to run: at most `room`, and no more than pay.
  // price: of a guess, in tokens that would come without it in the time that it takes (TokenCost::price).
  std::size_t guess(std::span<const TokenId> history, float price, std::size_t room) noexcept;

  // What was looked up last: one at least if there is any, also where none is to be run.
  std::span<const TokenId> guesses() const noexcept { return {guesses_.data(), found_}; }

  // Says which token came where the next of these guesses stands. Returns whether they are equal.
  bool note(TokenId came) noexcept;

  // Guesses that were run.
  std::size_t num_run() const noexcept { return num_run_; }

  // How many guesses behind an n-gram of `ngram` ids pay.
  std::size_t worth(std::size_t ngram, float price) const noexcept;

 private:
  static constexpr float kMemory = 8.0f;  // guesses after which a rate has mostly forgotten what was before
  static constexpr float kMargin = 1.2f;  // an estimate from eight guesses may be wrong by that
  // Tokens that a text may lose by wrong guesses: half a token, and one for each hundred steps.
  static constexpr float kFirstCredit = 0.5f;
  static constexpr float kCreditPerStep = 0.01f;

  static std::size_t rate_of(std::size_t ngram) noexcept;

  std::size_t max_ngram_;
  std::size_t found_ = 0, run_ = 0, judged_ = 0;  // of the last guesses
  std::size_t ngram_ = 0;                         // behind which they stood
  std::size_t num_run_ = 0;
  float credit_ = kFirstCredit;
  // Guesses that are right behind n-grams of 1, 2, and 3 or more ids, the guesses before them included. At first too
  // few for any to be run: a text shows by right guesses that it copies.
  std::array<float, 3> rates_ = {0.1f, 0.3f, 0.5f};
  std::vector<TokenId> guesses_;
};

}  // namespace sabiyarn
