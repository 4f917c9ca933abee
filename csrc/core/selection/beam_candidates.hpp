// csrc/core/selection/beam_candidates.hpp - the K candidates of a beam search step, out of num_beams * vocab_size.
//
// A candidate's score is the beam's running score + the token's processed log-probability. Before the first commit all
// beams of a prompt share one row of logits. The scores of all beams but the first are then 1e9 lower: they
// matter only if the row has fewer than K tokens left.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/selection/beam_search.hpp"
#include "core/selection/categorical_sample.hpp"
#include "core/selection/sampler.hpp"
#include "core/selection/top_k.hpp"

namespace sabiyarn {

class BeamCandidates {
 public:
  // Reserves the memory of a step. When sampling: 16 bytes for each beam and each token that top_k keeps (ties
  // included), or each token of the vocabulary.
  BeamCandidates(const DecodeOptions& options, std::size_t vocab_size);

  // scores: [num_beams or 1, vocab_size], processed. first_row: the row number of its first row in error texts.
  // Both return num_candidates() of the search, valid until the next call. They throw std::invalid_argument
  // "scores: row ..." for NaN, or if no beam has a token left.

  // Returns the best candidates, ordered by score (descending), then beam * vocab_size + token (ascending).
  std::span<const BeamCandidate> best(const BeamSearch& search, std::span<const float> scores,
                                      std::size_t vocab_size, std::size_t first_row);

  // Draws candidates without replacement from softmax(scores) over all beams and returns them in draw order. If
  // fewer than K have a probability above 0, the best of the others follow.
  std::span<const BeamCandidate> drawn(const BeamSearch& search, std::span<const float> scores,
                                       std::size_t vocab_size, std::size_t first_row, Sampler& sampler,
                                       std::uint64_t seed);

  // Gives the memory back.
  void release() noexcept {
    pool_indices_ = std::vector<std::int32_t>();
    pool_token_scores_ = std::vector<float>();
    pool_scores_ = std::vector<float>();
    pool_draw_ = CategoricalSampler();
  }

 private:
  void add_removed(const BeamSearch& search, std::size_t vocab_size);
  void gather_candidates(const BeamSearch& search, std::span<const float> scores, std::size_t vocab_size,
                         std::size_t first_row, Sampler& sampler);
  BeamCandidate from_pool(std::size_t place, std::size_t vocab_size) const;

  TopK top_;
  std::vector<BeamCandidate> chosen_;

  // For drawn(): every candidate of every beam.
  std::vector<std::int32_t> pool_indices_;  // beam * vocab_size + token, ascending
  std::vector<float> pool_token_scores_;
  std::vector<float> pool_scores_;  // with the beam's running score
  CategoricalSampler pool_draw_;
};

}  // namespace sabiyarn
