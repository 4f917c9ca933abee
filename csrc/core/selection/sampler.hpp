// csrc/core/selection/sampler.hpp - filters a row of processed scores and draws from the softmax of what is left.
#pragma once

#include <span>

#include "core/decoding/decode_options.hpp"
#include "core/selection/candidates.hpp"
#include "core/selection/categorical_sample.hpp"
#include "core/selection/sampling_filters.hpp"

namespace sabiyarn {

class Sampler {
 public:
  // `options` must outlive the sampler and have been validated. Memory for a whole row is reserved if they
  // sample, 25 bytes for each id (1.2 MiB for 52050), of which a step touches what it needs.
  Sampler(const DecodeOptions& options, std::size_t vocab_size);

  // Temperature, top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff, renormalize_logits. What is left
  // of the row: nothing if every score was -inf. Throws std::invalid_argument "scores: row <row> ..." for NaN
  // and for overflow.
  const Candidates& filter(std::span<const float> scores, std::size_t row);

  // After filter, if it left anything: several draws from that row. The token is where the cumulative
  // probability, in id order, first exceeds `u` in [0, 1).
  void begin_draws();
  struct Draw {
    TokenId token;
    float log_probability;
  };
  Draw draw(double u) const;

 private:
  const DecodeOptions& options_;
  std::size_t keep_;  // min_tokens_to_keep
  Candidates row_;
  FilterScratch scratch_;
  CategoricalSampler draw_;
};

}  // namespace sabiyarn
