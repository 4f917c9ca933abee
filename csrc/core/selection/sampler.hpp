// csrc/core/selection/sampler.hpp - filters a row of processed scores and draws from the softmax of the kept tokens.
#pragma once

#include <span>

#include "core/decoding/decode_options.hpp"
#include "core/selection/candidates.hpp"
#include "core/selection/categorical_sample.hpp"
#include "core/selection/sampling_filters.hpp"

namespace sabiyarn {

class Sampler {
 public:
  // `options` must be validated and outlive the sampler. The first filter() reserves memory for a complete row: 25
  // bytes for each id (1.2 MiB for 52050). A step touches only the part that it needs.
  explicit Sampler(const DecodeOptions& options);

  // Applies temperature, top_k, top_p, min_p, typical_p, epsilon_cutoff, eta_cutoff, renormalize_logits. Returns the
  // kept tokens; none if every score was -inf. Throws std::invalid_argument "scores: row <row> ..." for NaN and
  // for overflow.
  const Candidates& filter(std::span<const float> scores, std::size_t row);

  // Call begin_draws() after a filter() that kept tokens, then draw() any number of times. The drawn token is the first
  // in id order whose cumulative probability exceeds `u` in [0, 1).
  void begin_draws();
  struct Draw {
    TokenId token;
    float log_probability;
  };
  Draw draw(double u) const;

  // Gives the memory back.
  void release() noexcept {
    row_ = Candidates();
    scratch_ = FilterScratch();
    draw_ = CategoricalSampler();
  }

 private:
  const DecodeOptions& options_;
  std::size_t keep_;  // min_tokens_to_keep
  Candidates row_;
  FilterScratch scratch_;
  CategoricalSampler draw_;
};

}  // namespace sabiyarn
