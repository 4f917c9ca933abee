// csrc/core/selection/beam_candidates.hpp - the K continuations that a step of beam search weighs, out of num_beams *
// vocab_size.
//
// Scores are running score + processed log-probability. Before the first commit there is one row for all
// beams of a prompt; the beams besides the first then stand 1e9 below and matter only if the row has fewer
// than K tokens left.
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
  // Reserves what a step needs. When sampling, 16 bytes for each token of each beam that top_k lets through
  // (some ties included), or of the whole vocabulary.
  BeamCandidates(const DecodeOptions& options, std::size_t vocab_size);

  // scores: [num_beams or 1, vocab_size], processed; first_row: the number that an error gives to the first
  // of them. Both return num_candidates() of the search, valid until the next call, and throw
  // std::invalid_argument "scores: row ..." for NaN or where no beam has a token left.

  // The best, by (score descending, beam * vocab_size + token ascending).
  std::span<const BeamCandidate> best(const BeamSearch& search, std::span<const float> scores,
                                      std::size_t vocab_size, std::size_t first_row);

  // Drawn one after the other without replacement from softmax(scores) over all beams, in draw order. Where
  // fewer than K have any probability, the best of the rest follow.
  std::span<const BeamCandidate> drawn(const BeamSearch& search, std::span<const float> scores,
                                       std::size_t vocab_size, std::size_t first_row, Sampler& sampler,
                                       std::uint64_t seed);

 private:
  void add_removed(const BeamSearch& search, std::size_t vocab_size);
  void gather_candidates(const BeamSearch& search, std::span<const float> scores, std::size_t vocab_size,
                         std::size_t first_row, Sampler& sampler);
  BeamCandidate from_pool(std::size_t place, std::size_t vocab_size) const;

  TopK top_;
  std::vector<BeamCandidate> chosen_;

  // Of `drawn`: every candidate of every beam.
  std::vector<std::int32_t> pool_indices_;  // beam * vocab_size + token, ascending
  std::vector<float> pool_token_scores_;
  std::vector<float> pool_scores_;  // with the beam's running score
  CategoricalSampler pool_draw_;
};

}  // namespace sabiyarn
