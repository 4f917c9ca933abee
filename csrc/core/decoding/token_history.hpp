// csrc/core/decoding/token_history.hpp - the token ids of one sequence: its prompt, then the generated ones.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace sabiyarn {

using TokenId = std::int32_t;

// Ids that a sequence reserves memory for at most (256 KiB): twice the positions of the largest model.
inline constexpr std::size_t kReservedTokens = 65536;

class TokenHistory {
 public:
  // Reserves memory for the prompt and `max_new_tokens` new ids, 4 bytes each, so that append() allocates nothing.
  // A call with more new tokens than kReservedTokens reserves that many and grows later.
  TokenHistory(std::span<const TokenId> prompt, std::size_t max_new_tokens) : prompt_length_(prompt.size()) {
    ids_.reserve(prompt.size() + std::min(max_new_tokens, kReservedTokens));
    ids_.assign(prompt.begin(), prompt.end());
  }

  std::span<const TokenId> ids() const noexcept { return ids_; }
  std::span<const TokenId> generated() const noexcept { return ids().subspan(prompt_length_); }
  std::size_t length() const noexcept { return ids_.size(); }
  std::size_t prompt_length() const noexcept { return prompt_length_; }
  std::size_t generated_length() const noexcept { return ids_.size() - prompt_length_; }

  // Within the reserved length neither of these allocates.
  void append(TokenId id) { ids_.push_back(id); }
  // Replaces the generated ids by those of `other`, which has the same prompt.
  void copy_generated(const TokenHistory& other) {
    ids_.resize(prompt_length_);
    const auto source = other.generated();
    ids_.insert(ids_.end(), source.begin(), source.end());
  }

 private:
  std::vector<TokenId> ids_;
  std::size_t prompt_length_;
};

}  // namespace sabiyarn
