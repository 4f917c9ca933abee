// csrc/core/selection/beam_search.hpp - the beams of one prompt: running, finished, and when the search ends.
//
// Follows _beam_search of Hugging Face transformers 4.57 (transformers/generation/utils.py), in float32 as there.
// "Not allowed" is an added -1e9, which matters if there are fewer candidates than beams. Ties: running beams keep
// the order of their candidates, finished ones are ordered from oldest to newest.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/decoding/decode_options.hpp"
#include "core/decoding/finish_reason.hpp"
#include "core/selection/hypothesis.hpp"

namespace sabiyarn {

struct BeamCandidate {
  float score;        // sum of the beam's log-probabilities and this token's
  std::int32_t beam;  // the beam that it extends
  TokenId token;
  float token_score;  // this token's part of the sum
};

class BeamSearch {
 public:
  // `options` must be validated and outlive the search. Memory: 3 * num_beams hypotheses of max_length tokens.
  BeamSearch(const DecodeOptions& options, std::span<const TokenId> prompt, std::size_t max_length);

  std::size_t num_beams() const noexcept { return running_.size(); }
  // K, the number of candidates of a step: large enough that num_beams of them do not end with an end token.
  std::size_t num_candidates() const noexcept { return num_candidates_; }
  std::size_t max_length() const noexcept { return max_length_; }
  bool closed() const noexcept { return closed_; }

  // Before the first commit all beams are the prompt, and only beam 0 is extended.
  std::span<const float> running_scores() const noexcept { return running_scores_; }  // [num_beams]
  const Hypothesis& running(std::size_t beam) const { return running_[beam]; }

  // candidates: K of them, in the order of choice. reasons: why each ends its sequence, or none.
  void commit(std::span<const BeamCandidate> candidates, std::span<const FinishReason> reasons);
  // After a commit: the beam that each running beam extended.
  std::span<const std::int32_t> sources() const noexcept { return sources_; }  // [num_beams]

  // Finished sequences, best first. Beams that never finished have FinishReason::none.
  struct Finished {
    Hypothesis hypothesis;
    float score;  // sum / generated_length ^ length_penalty
    FinishReason reason;
  };
  bool has_finished() const noexcept { return finished(0).reason != FinishReason::none; }
  const Finished& finished(std::size_t rank) const { return pool_[pool_order_[rank]]; }

  // While the search is not closed: finished(rank) will begin with at least this many generated tokens of running(0).
  std::size_t certain_length(std::size_t rank) const;

 private:
  void update_pool(std::span<const BeamCandidate> candidates, std::span<const FinishReason> reasons);
  void update_running(std::span<const BeamCandidate> candidates, std::span<const FinishReason> reasons);
  bool can_improve() const;
  bool pool_is_full() const;
  float length_divisor(std::size_t generated) const;

  const DecodeOptions& options_;
  std::size_t max_length_;
  std::size_t num_candidates_;
  bool closed_ = false;

  std::vector<Hypothesis> running_;
  std::vector<Hypothesis> next_running_;  // the other half of a double buffer
  std::vector<float> running_scores_;
  std::vector<std::int32_t> sources_;
  std::vector<Finished> pool_;
  std::vector<std::size_t> pool_order_;  // pool_ indices, best first

  // Scratch of commit.
  struct Ranked {
    float score;
    std::size_t place;
  };
  std::vector<Ranked> ranked_;
  std::vector<std::size_t> free_slots_;
  std::vector<std::size_t> new_order_;
};

}  // namespace sabiyarn
