// csrc/core/sampler.hpp - one draw from softmax(processed scores) of a row.
#pragma once

#include <span>

#include "core/decode_options.hpp"
#include "core/survivors.hpp"

namespace sabiyarn {

class Sampler {
 public:
  // `options` must outlive the sampler and have been validated. Memory for a whole row is reserved if they
  // sample, 25 bytes for each id (1.2 MiB for 52050), of which a step touches what it needs.
  Sampler(const DecodeOptions& options, std::size_t vocab_size);

  // Temperature, top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff, renormalize_logits. What is left
  // of the row: nothing if every score was -inf. Throws std::invalid_argument "scores: row <row> ..." for NaN
  // and for overflow.
  const Survivors& filter(std::span<const float> scores, std::size_t row);

  // The token where the cumulative probability of the last filtered row, in id order, first exceeds `u` in
  // [0, 1). Several draws from one filtered row are allowed.
  struct Draw {
    TokenId token;
    float log_probability;
  };
  Draw draw(double u);

 private:
  const DecodeOptions& options_;
  std::size_t keep_;  // min_tokens_to_keep
  Survivors row_;
  FilterScratch scratch_;
  std::vector<float> weights_;
  double total_ = 0.0;
};

}  // namespace sabiyarn
