#include "core/decoding/prompt_lookup.hpp"

#include <algorithm>

namespace sabiyarn {

std::size_t look_up(std::span<const TokenId> history, std::size_t max_ngram, std::size_t max_guesses,
                    TokenId* guesses) noexcept {
  if (history.size() < 2) return 0;
  for (std::size_t n = std::min(max_ngram, history.size() - 1); n > 0; --n) {
    const std::span<const TokenId> newest = history.last(n);
    // A match may overlap the newest ids, but at least one id must follow it.
    const auto match = std::search(history.begin(), history.end() - 1, newest.begin(), newest.end());
    if (match == history.end() - 1) continue;
    const std::span<const TokenId> behind(match + static_cast<std::ptrdiff_t>(n), history.end());
    const std::size_t count = std::min(max_guesses, behind.size());
    std::copy_n(behind.begin(), count, guesses);
    return count;
  }
  return 0;
}

}  // namespace sabiyarn
