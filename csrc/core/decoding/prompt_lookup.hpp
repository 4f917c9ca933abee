// csrc/core/decoding/prompt_lookup.hpp - guesses the next tokens by copying from the text so far.
//
// Texts that copy from their prompt repeat its n-grams. So the ids behind an earlier occurrence of the newest
// n-gram are good guesses. All guesses are verified in one forward pass. Source: Saxena, "Prompt lookup decoding",
// 2023.
#pragma once

#include <cstddef>
#include <span>

#include "core/decoding/token_history.hpp"

namespace sabiyarn {

// Finds the first earlier occurrence of the newest n ids of `history`, for n = max_ngram down to 1. Writes up to
// `max_guesses` of the ids behind it to `guesses` and returns their number; 0 if nothing matches.
std::size_t look_up(std::span<const TokenId> history, std::size_t max_ngram, std::size_t max_guesses,
                    TokenId* guesses) noexcept;

}  // namespace sabiyarn
