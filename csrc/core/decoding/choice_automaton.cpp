#include "core/decoding/choice_automaton.hpp"

#include <algorithm>
#include <numeric>

#include "core/selection/score_processors.hpp"

namespace sabiyarn {

TokenOrder::TokenOrder(std::shared_ptr<const TokenBytes> tokens, std::span<const TokenId> excluded)
    : tokens_(std::move(tokens)) {
  ids_.resize(tokens_->size());
  std::iota(ids_.begin(), ids_.end(), TokenId{0});
  std::erase_if(ids_, [&](TokenId id) {
    return (*tokens_)[id].empty() || std::find(excluded.begin(), excluded.end(), id) != excluded.end();
  });
  // std::string_view compares bytes as unsigned, as narrowed() does.
  std::stable_sort(ids_.begin(), ids_.end(),
                   [&](TokenId a, TokenId b) { return (*tokens_)[a] < (*tokens_)[b]; });
}

TokenOrder::Range TokenOrder::narrowed(Range range, std::size_t depth, unsigned char byte) const noexcept {
  const auto next_byte = [&](TokenId id) { return static_cast<unsigned char>((*tokens_)[id][depth]); };
  const auto begin = ids_.begin();
  const auto first = std::partition_point(begin + static_cast<std::ptrdiff_t>(range.first),
                                          begin + static_cast<std::ptrdiff_t>(range.end),
                                          [&](TokenId id) { return next_byte(id) < byte; });
  const auto end = std::partition_point(first, begin + static_cast<std::ptrdiff_t>(range.end),
                                        [&](TokenId id) { return next_byte(id) == byte; });
  return {static_cast<std::size_t>(first - begin), static_cast<std::size_t>(end - begin)};
}

ChoiceAutomaton::ChoiceAutomaton(std::vector<std::string> choices, const TokenOrder& tokens,
                                 std::span<const TokenId> not_first) {
  std::sort(choices.begin(), choices.end());
  choices.erase(std::unique(choices.begin(), choices.end()), choices.end());
  const std::vector<State> ends = build_trie(choices);
  std::vector<std::vector<Edge>> found = find_edges(tokens, not_first);

  // Drop edges into dead ends. Edges lead to higher indices, so targets are decided first.
  std::vector<bool> leads_on(nodes_.size());
  for (std::size_t i = nodes_.size(); i-- > 0;) {
    std::erase_if(found[i],
                  [&](const Edge& edge) { return !leads_on[static_cast<std::size_t>(edge.target)]; });
    leads_on[i] = nodes_[i].is_complete || !found[i].empty();
  }
  std::vector<bool> is_reached(nodes_.size());
  is_reached[kStart] = true;
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    std::sort(found[i].begin(), found[i].end(),
              [](const Edge& a, const Edge& b) { return a.token < b.token; });
    first_edges_.push_back(edges_.size());
    if (!is_reached[i]) continue;
    for (const Edge& edge : found[i]) is_reached[static_cast<std::size_t>(edge.target)] = true;
    edges_.insert(edges_.end(), found[i].begin(), found[i].end());
  }
  first_edges_.push_back(edges_.size());
  for (std::size_t i = 0; i < choices.size(); ++i) {
    if (!is_reached[static_cast<std::size_t>(ends[i])]) unwritable_.push_back(choices[i]);
  }
}

// Makes the nodes; returns the last one of each choice. The choices are sorted: each shares its beginning with the one
// before it, and with no earlier one more.
std::vector<ChoiceAutomaton::State> ChoiceAutomaton::build_trie(const std::vector<std::string>& choices) {
  std::vector<State> ends, path = {kStart};  // the nodes of the choice before, from the root on
  std::vector<State> last_children = {kRefused};
  nodes_.emplace_back();
  const std::string none;
  for (std::size_t i = 0; i < choices.size(); ++i) {
    const std::string& before = i == 0 ? none : choices[i - 1];
    const auto common = std::mismatch(before.begin(), before.end(), choices[i].begin(), choices[i].end());
    path.resize(static_cast<std::size_t>(common.second - choices[i].begin()) + 1);
    for (std::size_t depth = path.size() - 1; depth < choices[i].size(); ++depth) {
      const auto parent = static_cast<std::size_t>(path.back());
      const auto child = static_cast<State>(nodes_.size());
      nodes_.push_back({.byte = static_cast<unsigned char>(choices[i][depth])});
      State& link = last_children[parent] == kRefused
                        ? nodes_[parent].first_child
                        : nodes_[static_cast<std::size_t>(last_children[parent])].next_sibling;
      link = child;
      last_children[parent] = child;
      last_children.push_back(kRefused);
      path.push_back(child);
    }
    nodes_[static_cast<std::size_t>(path.back())].is_complete = true;
    ends.push_back(path.back());
  }
  return ends;
}

std::vector<std::vector<ChoiceAutomaton::Edge>> ChoiceAutomaton::find_edges(
    const TokenOrder& tokens, std::span<const TokenId> not_first) const {
  std::vector<std::vector<Edge>> found(nodes_.size());
  struct Visit {
    State at;
    TokenOrder::Range range;  // the tokens that begin with the bytes from the state's node to here
    std::size_t depth;        // number of these bytes
  };
  std::vector<Visit> waiting;
  for (std::size_t from = 0; from < nodes_.size(); ++from) {
    waiting.push_back({static_cast<State>(from), tokens.all(), 0});
    while (!waiting.empty()) {
      auto [at, range, depth] = waiting.back();
      waiting.pop_back();
      for (; !range.empty() && tokens.length(range.first) == depth; ++range.first) {
        const TokenId token = tokens.id(range.first);
        if (from == kStart && std::binary_search(not_first.begin(), not_first.end(), token)) continue;
        found[from].push_back({token, at});
      }
      for (State child = node(at).first_child; child != kRefused; child = node(child).next_sibling) {
        const TokenOrder::Range narrowed = tokens.narrowed(range, depth, node(child).byte);
        if (!narrowed.empty()) waiting.push_back({child, narrowed, depth + 1});
      }
    }
  }
  return found;
}

void ChoiceAutomaton::allow(State state, std::span<std::uint32_t> mask) const noexcept {
  if (state < 0) return;
  for (const Edge& edge : edges(state)) {
    const auto token = static_cast<std::size_t>(edge.token);
    mask[token / kMaskBits] |= std::uint32_t{1} << token % kMaskBits;
  }
}

ChoiceAutomaton::State ChoiceAutomaton::next(State state, TokenId token) const noexcept {
  if (state < 0) return kRefused;
  const auto known = edges(state);
  const auto found = std::lower_bound(known.begin(), known.end(), token,
                                      [](const Edge& edge, TokenId id) { return edge.token < id; });
  return found == known.end() || found->token != token ? kRefused : found->target;
}

}  // namespace sabiyarn
