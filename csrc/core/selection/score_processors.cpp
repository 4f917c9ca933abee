#include "core/selection/score_processors.hpp"

#include <algorithm>
#include <array>
#include <limits>

namespace sabiyarn {
namespace {

constexpr float kRemoved = -std::numeric_limits<float>::infinity();

// Each bit of a word. Vectors have no shift by an amount of each lane's own before AVX2.
constexpr auto kBit = [] {
  std::array<std::uint32_t, kMaskBits> bits{};
  for (std::size_t i = 0; i < kMaskBits; ++i) bits[i] = std::uint32_t{1} << i;
  return bits;
}();

std::size_t index(TokenId id) noexcept { return static_cast<std::size_t>(id); }

// Returns true if all ids of `sequence` but its last equal the row's newest ids.
bool would_complete(Ids sequence, Ids ids) noexcept {
  const std::size_t prefix = sequence.size() - 1;
  if (prefix == 0) return true;
  if (sequence.size() > ids.size()) return false;
  return std::equal(sequence.begin(), sequence.end() - 1, ids.end() - static_cast<std::ptrdiff_t>(prefix));
}

}  // namespace

void apply_sequence_bias(Scores scores, Ids ids, std::span<const SequenceBias> biases, IdBiases& scratch) {
  // One sum for each last id, single ids first, then one addition to the score: the reference rounds in this order.
  for (const bool single : {true, false}) {
    for (const SequenceBias& entry : biases) {
      if ((entry.ids.size() == 1) == single && would_complete(entry.ids, ids)) {
        scratch[index(entry.ids.back())] += entry.bias;
      }
    }
  }
  for (const SequenceBias& entry : biases) {
    const std::size_t last = index(entry.ids.back());
    scores[last] += scratch[last];
    scratch[last] = 0.0f;
  }
}

void apply_repetition_penalty(Scores scores, Ids ids, float penalty, std::size_t window, IdCounts& scratch) {
  const Ids seen = window == 0 || window >= ids.size() ? ids : ids.last(window);
  for (const TokenId id : seen) {
    if (scratch[index(id)]++ != 0) continue;
    float& score = scores[index(id)];
    score = score < 0.0f ? score * penalty : score / penalty;
  }
  for (const TokenId id : seen) scratch[index(id)] = 0;
}

void apply_openai_penalties(Scores scores, Ids generated, float frequency, float presence,
                            IdCounts& scratch) {
  for (const TokenId id : generated) ++scratch[index(id)];
  for (const TokenId id : generated) {
    std::uint32_t& count = scratch[index(id)];
    if (count == 0) continue;  // an earlier occurrence has done it
    scores[index(id)] -= static_cast<float>(count) * frequency + presence;
    count = 0;
  }
}

void ban_repeated_ngrams(Scores scores, Ids ids, std::size_t ngram_size) {
  if (ids.size() < ngram_size) return;
  const std::size_t prefix = ngram_size - 1;
  const Ids newest = ids.last(prefix);
  for (std::size_t end = prefix; end < ids.size(); ++end) {
    if (std::equal(newest.begin(), newest.end(), ids.begin() + static_cast<std::ptrdiff_t>(end - prefix))) {
      scores[index(ids[end])] = kRemoved;
    }
  }
}

void ban_bad_words(Scores scores, Ids ids, std::span<const std::vector<TokenId>> bad_words) {
  for (const auto& word : bad_words) {
    if (would_complete(word, ids)) scores[index(word.back())] = kRemoved;
  }
}

void ban(Scores scores, Ids banned) {
  for (const TokenId id : banned) scores[index(id)] = kRemoved;
}

void keep_only(Scores scores, Ids allowed, IdCounts& scratch) {
  for (const TokenId id : allowed) scratch[index(id)] = 1;
  for (std::size_t id = 0; id < scores.size(); ++id) {
    if (scratch[id] == 0) scores[id] = kRemoved;
  }
  for (const TokenId id : allowed) scratch[index(id)] = 0;
}

void keep_only(Scores scores, TokenMask allowed) {
  for (std::size_t first = 0; first < scores.size(); first += kMaskBits) {
    const std::uint32_t bits = allowed[first / kMaskBits];
    const Scores part = scores.subspan(first, std::min(kMaskBits, scores.size() - first));
    if (bits == 0) {
      std::fill(part.begin(), part.end(), kRemoved);
    } else if (bits != ~std::uint32_t{0}) {
      for (std::size_t i = 0; i < part.size(); ++i) part[i] = (bits & kBit[i]) != 0 ? part[i] : kRemoved;
    }
  }
}

void force(Scores scores, Ids forced) {
  std::fill(scores.begin(), scores.end(), kRemoved);
  for (const TokenId id : forced) scores[index(id)] = 0.0f;
}

}  // namespace sabiyarn
