#include <algorithm>

#include "check.hpp"
#include "core/decoding/token_history.hpp"

using namespace sabiyarn;

int main() {
  const std::vector<TokenId> prompt{4, 5};
  TokenHistory first(prompt, 3), second(prompt, 3);
  const TokenId* memory = first.ids().data();
  for (const TokenId id : {7, 8, 9}) first.append(id);
  CHECK(first.ids().data() == memory);  // within the reserved length nothing moves
  CHECK(first.length() == 5 && first.prompt_length() == 2 && first.generated_length() == 3);
  CHECK(first.generated().front() == 7);

  second.append(1);
  second.copy_generated(first);
  CHECK(std::ranges::equal(second.ids(), first.ids()));
  second.copy_generated(TokenHistory(prompt, 3));
  CHECK(second.generated().empty());
  return outcome();
}
