// csrc/core/decoding/stop_strings.hpp - tells if the newest token completes a stop string.
//
// Follows StopStringCriteria of Hugging Face transformers 4.57: the string must overlap the newest token, may begin in
// any earlier one (also in the prompt) and may end inside the newest. Bytes are compared, because a token may hold
// a part of a character.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/decoding/token_history.hpp"

namespace sabiyarn {

// The bytes of each token id. One table serves every call with the same tokenizer.
class TokenBytes {
 public:
  explicit TokenBytes(std::span<const std::string_view> tokens);

  // Ids beyond the table (a model may have more ids than its tokenizer) have no bytes.
  std::string_view operator[](TokenId id) const noexcept;
  std::size_t size() const noexcept { return ends_.size(); }

 private:
  std::string bytes_;
  std::vector<std::size_t> ends_;  // token i is bytes_[ends_[i - 1], ends_[i])
};

class StopStrings {
 public:
  // Both arguments must outlive the object. No string may be empty.
  StopStrings(const std::vector<std::string>& strings, const TokenBytes& tokens);

  // Returns true if `token`, appended to `ids`, completes one of the strings.
  bool completed_by(std::span<const TokenId> ids, TokenId token) const;

 private:
  const std::vector<std::string>& strings_;
  const TokenBytes& tokens_;
  std::size_t longest_ = 0;
  mutable std::string tail_;  // scratch: the longest string's reach before the token, then the token
};

}  // namespace sabiyarn
