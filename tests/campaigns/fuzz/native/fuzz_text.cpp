// Stop strings and prompt lookup against plain loops.
#include <algorithm>
#include <string>
#include <string_view>
#include <vector>

#include "bytes.hpp"
#include "core/decoding/prompt_lookup.hpp"
#include "core/decoding/stop_strings.hpp"
#include "require.hpp"

using namespace sabiyarn;

namespace {

std::string text(Bytes& bytes, std::size_t most) {
  std::string result(bytes.below(most + 1), 'a');
  for (char& letter : result) letter = static_cast<char>('a' + bytes.below(3));
  return result;
}

// Returns true if a stop string ends inside the newest token, or at its end.
bool completes(const std::vector<std::string>& stops, const std::vector<std::string>& texts,
               const std::vector<TokenId>& ids, TokenId token) {
  const auto bytes_of = [&](TokenId id) {
    return static_cast<std::size_t>(id) < texts.size() ? texts[static_cast<std::size_t>(id)] : std::string();
  };
  std::string before;
  for (const TokenId id : ids) before += bytes_of(id);
  const std::string all = before + bytes_of(token);
  for (const std::string& stop : stops) {
    for (std::size_t at = 0; at + stop.size() <= all.size(); ++at) {
      if (at + stop.size() > before.size() && all.compare(at, stop.size(), stop) == 0) return true;
    }
  }
  return false;
}

std::vector<TokenId> plain_look_up(const std::vector<TokenId>& history, std::size_t max_ngram,
                                   std::size_t max_guesses) {
  for (std::size_t n = std::min(max_ngram, history.empty() ? 0 : history.size() - 1); n > 0; --n) {
    for (std::size_t at = 0; at + n < history.size(); ++at) {
      bool equal = true;
      for (std::size_t i = 0; i < n; ++i) equal = equal && history[at + i] == history[history.size() - n + i];
      if (!equal) continue;
      std::vector<TokenId> guesses;
      for (std::size_t i = at + n; i < history.size() && guesses.size() < max_guesses; ++i) {
        guesses.push_back(history[i]);
      }
      return guesses;
    }
  }
  return {};
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes bytes(data, size);
  std::vector<std::string> texts(1 + bytes.below(6)), stops(1 + bytes.below(4));
  for (std::string& entry : texts) entry = text(bytes, 4);
  for (std::string& entry : stops) entry = text(bytes, 6) + 'a';
  std::vector<TokenId> history(bytes.below(20));
  for (TokenId& id : history) id = bytes.id(8);  // some are beyond the table

  const std::vector<std::string_view> views(texts.begin(), texts.end());
  const TokenBytes table(views);
  const TokenId token = bytes.id(8);
  require(StopStrings(stops, table).completed_by(history, token) == completes(stops, texts, history, token),
          "a stop string is seen where it ends");

  const std::size_t max_ngram = bytes.below(5), max_guesses = bytes.below(6);
  std::vector<TokenId> guesses(max_guesses);
  guesses.resize(look_up(history, max_ngram, max_guesses, guesses.data()).count);
  require(guesses == plain_look_up(history, max_ngram, max_guesses),
          "guesses are copied from the first match");
  return 0;
}
