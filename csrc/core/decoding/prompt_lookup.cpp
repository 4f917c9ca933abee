#include "core/decoding/prompt_lookup.hpp"

#include <algorithm>

namespace sabiyarn {

LookupMatch look_up(std::span<const TokenId> history, std::size_t max_ngram, std::size_t max_guesses,
                    TokenId* guesses) noexcept {
  if (history.size() < 2) return {};
  for (std::size_t n = std::min(max_ngram, history.size() - 1); n > 0; --n) {
    const std::span<const TokenId> newest = history.last(n);
    // A match may overlap the newest ids, but at least one id must follow it.
    const auto match = std::search(history.begin(), history.end() - 1, newest.begin(), newest.end());
    if (match == history.end() - 1) continue;
    const std::span<const TokenId> behind(match + static_cast<std::ptrdiff_t>(n), history.end());
    const std::size_t count = std::min(max_guesses, behind.size());
    std::copy_n(behind.begin(), count, guesses);
    return {n, count};
  }
  return {};
}

std::size_t Guesser::rate_of(std::size_t ngram) noexcept {
  return std::min<std::size_t>(ngram, std::tuple_size_v<decltype(rates_)>) - 1;
}

std::size_t Guesser::guess(std::span<const TokenId> history, float price, std::size_t room) noexcept {
  const LookupMatch match = look_up(history, max_ngram_, guesses_.size(), guesses_.data());
  credit_ += kCreditPerStep;
  ngram_ = match.ngram;
  run_ = match.count == 0 ? 0 : std::min({worth(match.ngram, price), room, match.count});
  found_ = std::min(match.count, std::max<std::size_t>(run_, 1));
  judged_ = 0;
  credit_ -= price * static_cast<float>(run_);
  num_run_ += run_;
  return run_;
}

bool Guesser::note(TokenId came) noexcept {
  if (judged_ >= found_) return false;
  const bool right = guesses_[judged_] == came;
  float& rate = rates_[rate_of(ngram_ + judged_)];
  rate += ((right ? 1.0f : 0.0f) - rate) / kMemory;
  if (right && judged_ < run_) credit_ += 1.0f;
  ++judged_;
  return right;
}

std::size_t Guesser::worth(std::size_t ngram, float price) const noexcept {
  std::size_t count = 0;
  float right = 1.0f;
  while (count < guesses_.size() && static_cast<float>(count + 1) * price <= credit_) {
    right *= rates_[rate_of(ngram + count)];
    if (right <= kMargin * price) break;
    ++count;
  }
  return count;
}

}  // namespace sabiyarn
