// csrc/core/decoding/choice_automaton.hpp - which tokens write one of several texts, step by step.
//
// A state is a node of the byte trie of the choices. A token may come next if its bytes lead from the state's node to
// another one from which a choice can be completed. So every way of cutting a choice into tokens is allowed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/decoding/stop_strings.hpp"
#include "core/decoding/token_history.hpp"

namespace sabiyarn {

// The token ids of a vocabulary, sorted by their bytes. One serves all automata of a tokenizer.
class TokenOrder {
 public:
  // `excluded`: ids that write no text, as special tokens do. Ids without bytes are left out, too.
  TokenOrder(std::shared_ptr<const TokenBytes> tokens, std::span<const TokenId> excluded);

  // Places in the order of tokens that have their first bytes in common.
  struct Range {
    std::size_t first, end;
    bool empty() const noexcept { return first == end; }
  };
  std::size_t num_ids() const noexcept { return tokens_->size(); }
  Range all() const noexcept { return {0, ids_.size()}; }
  TokenId id(std::size_t place) const noexcept { return ids_[place]; }
  std::size_t length(std::size_t place) const noexcept { return (*tokens_)[ids_[place]].size(); }
  // Of a range of tokens that have their first `depth` bytes in common and are longer: those whose next is `byte`.
  Range narrowed(Range range, std::size_t depth, unsigned char byte) const noexcept;

 private:
  std::shared_ptr<const TokenBytes> tokens_;
  std::vector<TokenId> ids_;
};

class ChoiceAutomaton {
 public:
  using State = std::int32_t;
  static constexpr State kStart = 0;
  static constexpr State kRefused = -1;  // no choice begins like this

  // choices: not empty, nor is one of them.
  // not_first: ids that cannot begin a text, ascending.
  ChoiceAutomaton(std::vector<std::string> choices, const TokenOrder& tokens,
                  std::span<const TokenId> not_first);

  State num_states() const noexcept { return static_cast<State>(nodes_.size()); }
  // Sets the bits of the tokens that may come next, and changes no others. `mask` has a bit for each token id.
  void allow(State state, std::span<std::uint32_t> mask) const noexcept;
  State next(State state, TokenId token) const noexcept;
  // Whether the text so far is one of the choices, and whether a longer one begins with it.
  bool is_complete(State state) const noexcept { return state >= 0 && node(state).is_complete; }
  bool can_go_on(State state) const noexcept { return state >= 0 && edges(state).size() > 0; }
  // The choices that no row of tokens writes, sorted.
  const std::vector<std::string>& unwritable() const noexcept { return unwritable_; }

 private:
  struct Node {
    State first_child = kRefused, next_sibling = kRefused;
    unsigned char byte = 0;
    bool is_complete = false;
  };
  struct Edge {
    TokenId token;
    State target;
  };

  const Node& node(State state) const noexcept { return nodes_[static_cast<std::size_t>(state)]; }
  std::span<const Edge> edges(State state) const noexcept {
    const auto i = static_cast<std::size_t>(state);
    return std::span(edges_).subspan(first_edges_[i], first_edges_[i + 1] - first_edges_[i]);
  }
  std::vector<State> build_trie(const std::vector<std::string>& choices);
  std::vector<std::vector<Edge>> find_edges(const TokenOrder& tokens,
                                            std::span<const TokenId> not_first) const;

  std::vector<Node> nodes_;  // a node's index is above its parent's
  std::vector<Edge> edges_;  // node by node, by ascending token
  std::vector<std::size_t> first_edges_;
  std::vector<std::string> unwritable_;
};

}  // namespace sabiyarn
