#include "core/selection/beam_candidates.hpp"

#include <algorithm>
#include <limits>

#include "core/selection/random.hpp"
#include "core/selection/row_math.hpp"

namespace sabiyarn {
namespace {

constexpr float kRemoved = -std::numeric_limits<float>::infinity();

// Returns the row of a beam. Before the first commit all beams share one.
std::span<const float> row_of(std::span<const float> scores, std::size_t vocab_size,
                              std::size_t beam) noexcept {
  return scores.size() == vocab_size ? scores : scores.subspan(beam * vocab_size, vocab_size);
}

}  // namespace

BeamCandidates::BeamCandidates(const DecodeOptions& options, std::size_t vocab_size) {
  if (options.num_beams == 1 || !options.do_sample) return;
  const auto top_k = static_cast<std::size_t>(options.top_k);
  const std::size_t from_each = top_k == 0 ? vocab_size : std::min(vocab_size, top_k + 64);
  const std::size_t count = from_each * static_cast<std::size_t>(options.num_beams);
  pool_indices_.reserve(count);
  pool_token_scores_.reserve(count);
  pool_scores_.reserve(count);
  pool_draw_.reserve(count);
}

std::span<const BeamCandidate> BeamCandidates::best(const BeamSearch& search, std::span<const float> scores,
                                                    std::size_t vocab_size, std::size_t first_row) {
  const std::size_t rows = scores.size() / vocab_size;
  for (std::size_t row = 0; row < rows; ++row) {
    checked_maximum(scores.subspan(row * vocab_size, vocab_size), first_row + row);
  }
  const auto running = search.running_scores();
  const std::size_t wanted = search.num_candidates();
  const auto select = [&](std::size_t beams) {
    top_.begin(wanted);
    for (std::size_t beam = 0; beam < beams; ++beam) {
      top_.offer(row_of(scores, vocab_size, beam), running[beam],
                 static_cast<std::int32_t>(beam * vocab_size));
    }
    return top_.finish();
  };
  auto selected = select(rows);
  if (selected.empty() && !search.has_finished()) refuse_removed_row(first_row);
  if (rows < search.num_beams() && !selected.empty()) {
    const float best_of_others = selected.front().score + running[1];
    if (selected.size() < wanted || selected.back().score <= best_of_others)
      selected = select(search.num_beams());
  }

  chosen_.clear();
  for (const auto [score, index] : selected) {
    const auto flat = static_cast<std::size_t>(index);
    const std::size_t beam = flat / vocab_size, token = flat % vocab_size;
    chosen_.push_back({score, static_cast<std::int32_t>(beam), static_cast<TokenId>(token),
                       row_of(scores, vocab_size, beam)[token]});
  }
  if (chosen_.size() < wanted) add_removed(search, vocab_size);
  return chosen_;
}

// Fills up to K candidates with removed tokens, lowest index first: the reference always has K candidates.
void BeamCandidates::add_removed(const BeamSearch& search, std::size_t vocab_size) {
  const std::size_t known = chosen_.size();
  for (std::size_t beam = 0; beam < search.num_beams(); ++beam) {
    for (std::size_t token = 0; token < vocab_size; ++token) {
      if (chosen_.size() == search.num_candidates()) return;
      const auto is_this = [&](const BeamCandidate& other) {
        return static_cast<std::size_t>(other.beam) == beam && static_cast<std::size_t>(other.token) == token;
      };
      const auto end = chosen_.begin() + static_cast<std::ptrdiff_t>(known);
      if (std::any_of(chosen_.begin(), end, is_this)) continue;
      chosen_.push_back({kRemoved, static_cast<std::int32_t>(beam), static_cast<TokenId>(token), kRemoved});
    }
  }
}

void BeamCandidates::gather_candidates(const BeamSearch& search, std::span<const float> scores,
                                       std::size_t vocab_size, std::size_t first_row, Sampler& sampler) {
  pool_indices_.clear();
  pool_token_scores_.clear();
  pool_scores_.clear();
  const auto running = search.running_scores();
  const auto take = [&](const Candidates& row, std::size_t beam) {
    const auto offset = static_cast<std::int32_t>(beam * vocab_size);
    for (const TokenId id : row.ids()) pool_indices_.push_back(offset + id);
    for (const float score : row.scores()) pool_scores_.push_back(score + running[beam]);
    pool_token_scores_.insert(pool_token_scores_.end(), row.scores().begin(), row.scores().end());
  };
  const std::size_t rows = scores.size() / vocab_size;
  for (std::size_t row = 0; row < rows; ++row) {
    const Candidates& candidates =
        sampler.filter(scores.subspan(row * vocab_size, vocab_size), first_row + row);
    take(candidates, row);
    if (rows == search.num_beams() || pool_scores_.size() >= search.num_candidates()) continue;
    for (std::size_t beam = 1; beam < search.num_beams(); ++beam) take(candidates, beam);
  }
}

BeamCandidate BeamCandidates::from_pool(std::size_t place, std::size_t vocab_size) const {
  const auto index = static_cast<std::size_t>(pool_indices_[place]);
  return {pool_scores_[place], static_cast<std::int32_t>(index / vocab_size),
          static_cast<TokenId>(index % vocab_size), pool_token_scores_[place]};
}

std::span<const BeamCandidate> BeamCandidates::drawn(const BeamSearch& search, std::span<const float> scores,
                                                     std::size_t vocab_size, std::size_t first_row,
                                                     Sampler& sampler, std::uint64_t seed) {
  gather_candidates(search, scores, vocab_size, first_row, sampler);
  if (pool_scores_.empty() && !search.has_finished()) refuse_removed_row(first_row);
  pool_draw_.set_scores(pool_scores_);

  chosen_.clear();
  const std::size_t wanted = search.num_candidates();
  const auto step = static_cast<std::uint32_t>(search.running(0).history.generated_length());
  while (chosen_.size() < wanted) {
    const auto number = static_cast<std::uint32_t>(chosen_.size());
    const std::size_t place = pool_draw_.draw(uniform(seed, 0, step, number));
    if (place == pool_scores_.size()) break;  // no probability is left
    chosen_.push_back(from_pool(place, vocab_size));
    pool_draw_.remove(place);
    pool_scores_[place] = kRemoved;
  }
  if (chosen_.size() < wanted && !pool_scores_.empty()) {
    top_.begin(wanted - chosen_.size());
    top_.offer(pool_scores_, 0.0f, 0);
    for (const ScoredIndex& next : top_.finish()) {
      chosen_.push_back(from_pool(static_cast<std::size_t>(next.index), vocab_size));
    }
  }
  if (chosen_.size() < wanted) add_removed(search, vocab_size);
  return chosen_;
}

}  // namespace sabiyarn
