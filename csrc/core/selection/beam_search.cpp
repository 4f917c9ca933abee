#include "core/selection/beam_search.hpp"

#include <algorithm>

#include "core/simd/exact_math.hpp"

namespace sabiyarn {
namespace {

constexpr float kNotAllowed = -1.0e9f;

}  // namespace

BeamSearch::BeamSearch(const DecodeOptions& options, std::span<const TokenId> prompt, std::size_t max_length)
    : options_(options),
      max_length_(max_length),
      num_candidates_(std::max<std::size_t>(2, 1 + options.eos_token_id.size()) *
                      static_cast<std::size_t>(options.num_beams)) {
  const auto beams = static_cast<std::size_t>(options.num_beams);
  running_.reserve(beams);
  next_running_.reserve(beams);
  pool_.reserve(beams);
  for (std::size_t beam = 0; beam < beams; ++beam) {
    running_.emplace_back(prompt, max_length - prompt.size(), options.return_scores);
    next_running_.emplace_back(prompt, max_length - prompt.size(), options.return_scores);
    pool_.push_back({Hypothesis(prompt, max_length - prompt.size(), options.return_scores), kNotAllowed,
                     FinishReason::none});
    pool_order_.push_back(beam);
    running_scores_.push_back(beam == 0 ? 0.0f : kNotAllowed);
    sources_.push_back(0);
  }
  ranked_.reserve(beams + num_candidates_);
  free_slots_.reserve(beams);
  new_order_.reserve(beams);
}

float BeamSearch::length_divisor(std::size_t generated) const {
  // Clamped: an extreme length_penalty would otherwise give 0 or infinity.
  const double power = pow_double(static_cast<double>(generated), options_.length_penalty);
  return static_cast<float>(std::clamp(power, 1e-37, 1e37));
}

void BeamSearch::commit(std::span<const BeamCandidate> candidates, std::span<const FinishReason> reasons) {
  update_pool(candidates, reasons);
  update_running(candidates, reasons);
  const bool all_hit = std::all_of(reasons.begin(), reasons.end(),
                                   [](FinishReason reason) { return reason != FinishReason::none; });
  closed_ = !can_improve() || all_hit || (options_.early_stopping == EarlyStopping::yes && pool_is_full());
}

bool BeamSearch::pool_is_full() const {
  return std::all_of(pool_.begin(), pool_.end(),
                     [](const Finished& entry) { return entry.reason != FinishReason::none; });
}

void BeamSearch::update_pool(std::span<const BeamCandidate> candidates,
                             std::span<const FinishReason> reasons) {
  const std::size_t beams = num_beams();
  const float divisor = length_divisor(running_[0].history.generated_length() + 1);
  ranked_.clear();
  for (std::size_t rank = 0; rank < beams; ++rank) ranked_.push_back({finished(rank).score, rank});
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    float score = candidates[i].score / divisor;
    // Only a hit among the first num_beams candidates is a finished sequence.
    if (reasons[i] == FinishReason::none || i >= beams) score += kNotAllowed;
    ranked_.push_back({score, beams + i});
  }
  std::partial_sort(ranked_.begin(), ranked_.begin() + static_cast<std::ptrdiff_t>(beams), ranked_.end(),
                    [](const Ranked& a, const Ranked& b) {
                      return a.score != b.score ? a.score > b.score : a.place < b.place;
                    });

  // New sequences overwrite the slots of those that drop out.
  free_slots_ = pool_order_;
  for (std::size_t rank = 0; rank < beams; ++rank) {
    if (ranked_[rank].place < beams) std::erase(free_slots_, pool_order_[ranked_[rank].place]);
  }
  new_order_.clear();
  for (std::size_t rank = 0; rank < beams; ++rank) {
    const auto [score, place] = ranked_[rank];
    if (place < beams) {
      new_order_.push_back(pool_order_[place]);
      continue;
    }
    const std::size_t i = place - beams;
    const std::size_t slot = free_slots_.back();
    free_slots_.pop_back();
    Finished& entry = pool_[slot];
    entry.hypothesis.copy_generated(running_[static_cast<std::size_t>(candidates[i].beam)]);
    entry.hypothesis.append(candidates[i].token, candidates[i].token_score);
    entry.score = score;
    entry.reason = i < beams ? reasons[i] : FinishReason::none;
    new_order_.push_back(slot);
  }
  pool_order_.swap(new_order_);
}

void BeamSearch::update_running(std::span<const BeamCandidate> candidates,
                                std::span<const FinishReason> reasons) {
  const std::size_t beams = num_beams();
  ranked_.clear();
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    ranked_.push_back({candidates[i].score + (reasons[i] != FinishReason::none ? kNotAllowed : 0.0f), i});
  }
  std::partial_sort(ranked_.begin(), ranked_.begin() + static_cast<std::ptrdiff_t>(beams), ranked_.end(),
                    [](const Ranked& a, const Ranked& b) {
                      return a.score != b.score ? a.score > b.score : a.place < b.place;
                    });
  for (std::size_t beam = 0; beam < beams; ++beam) {
    const BeamCandidate& candidate = candidates[ranked_[beam].place];
    next_running_[beam].copy_generated(running_[static_cast<std::size_t>(candidate.beam)]);
    next_running_[beam].append(candidate.token, candidate.token_score);
    running_scores_[beam] = ranked_[beam].score;
    sources_[beam] = candidate.beam;
  }
  running_.swap(next_running_);
}

bool BeamSearch::can_improve() const {
  const std::size_t prompt = running_[0].history.prompt_length();
  const bool longest = options_.early_stopping == EarlyStopping::never && options_.length_penalty > 0.0;
  const std::size_t length = longest ? max_length_ - prompt : running_[0].history.generated_length();
  const float best_running = running_scores_[0] / length_divisor(length);
  const float worst_finished = finished(num_beams() - 1).score;
  return std::any_of(pool_.begin(), pool_.end(), [&](const Finished& entry) {
    return best_running > (entry.reason != FinishReason::none ? worst_finished : kNotAllowed);
  });
}

std::size_t BeamSearch::certain_length(std::size_t rank) const {
  const std::span<const TokenId> first = running_[0].history.generated();
  std::size_t length = first.size();
  const auto limit = [&](const Hypothesis& other) {
    const auto ids = other.history.generated();
    const auto [mine, theirs] = std::mismatch(
        first.begin(), first.begin() + static_cast<std::ptrdiff_t>(length), ids.begin(), ids.end());
    length = static_cast<std::size_t>(mine - first.begin());
  };
  for (const Hypothesis& beam : running_) limit(beam);
  // The rank of a finished sequence never improves: those behind `rank` cannot move up to it.
  for (std::size_t i = 0; i <= rank; ++i) {
    if (finished(i).reason != FinishReason::none) limit(finished(i).hypothesis);
  }
  return length;
}

}  // namespace sabiyarn
