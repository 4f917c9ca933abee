// csrc/core/decoding/prompt_lookup.hpp - guesses the next tokens by copying from what stands in the text already.
//
// Prompt lookup decoding (Saxena 2023): texts that copy from their prompt repeat its runs of ids, so the ids
// behind an earlier occurrence of the newest ones are good guesses. All guesses are verified in one forward
// pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/decoding/token_history.hpp"

namespace sabiyarn {

// Looks for the newest n ids earlier in `history`, n = max_ngram ... 1, first occurrence first, and writes up
// to `max_guesses` of the ids behind it to `guesses`. Returns how many; 0 if nothing matches.
std::size_t look_up(std::span<const TokenId> history, std::size_t max_ngram, std::size_t max_guesses,
                    TokenId* guesses) noexcept;

}  // namespace sabiyarn
