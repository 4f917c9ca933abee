#include "core/decoding/stop_strings.hpp"

#include <algorithm>

namespace sabiyarn {

TokenBytes::TokenBytes(std::span<const std::string_view> tokens) {
  ends_.reserve(tokens.size());
  for (const std::string_view token : tokens) {
    bytes_ += token;
    ends_.push_back(bytes_.size());
  }
}

std::string_view TokenBytes::operator[](TokenId id) const noexcept {
  const auto i = static_cast<std::size_t>(id);
  if (i >= ends_.size()) return {};
  const std::size_t begin = i == 0 ? 0 : ends_[i - 1];
  return std::string_view(bytes_).substr(begin, ends_[i] - begin);
}

StopStrings::StopStrings(const std::vector<std::string>& strings, const TokenBytes& tokens)
    : strings_(strings), tokens_(tokens) {
  for (const auto& text : strings) longest_ = std::max(longest_, text.size());
  std::size_t longest_token = 0;
  for (std::size_t id = 0; id < tokens.size(); ++id) {
    longest_token = std::max(longest_token, tokens[static_cast<TokenId>(id)].size());
  }
  tail_.reserve(longest_ + longest_token);
}

bool StopStrings::completed_by(std::span<const TokenId> ids, TokenId token) const {
  const std::string_view newest = tokens_[token];
  if (strings_.empty() || newest.empty()) return false;
  // Up to longest_ - 1 bytes before the newest token, filled from their end.
  const std::size_t reach = longest_ - 1;
  tail_.resize(reach + newest.size());
  std::size_t begin = reach;
  for (std::size_t i = ids.size(); i-- > 0 && begin > 0;) {
    const std::string_view bytes = tokens_[ids[i]];
    const std::size_t taken = std::min(bytes.size(), begin);
    begin -= taken;
    bytes.copy(tail_.data() + begin, taken, bytes.size() - taken);
  }
  newest.copy(tail_.data() + reach, newest.size());
  const std::string_view text(tail_);
  return std::any_of(strings_.begin(), strings_.end(), [&](const std::string& wanted) {
    // The first offset from which the string reaches into the newest token.
    const std::size_t first = std::max(begin, reach + 1 - std::min(wanted.size(), reach + 1));
    return text.find(wanted, first) != std::string_view::npos;
  });
}

}  // namespace sabiyarn
