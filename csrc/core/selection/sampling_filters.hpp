// csrc/core/selection/sampling_filters.hpp - top-p, min-p, typical, epsilon and eta sampling over a row's candidates.
//
// Formulas are those of Hugging Face transformers 4.57 (transformers/generation/logits_process.py, "warpers"). They
// apply to the candidates only: a removed token has probability 0 in every later softmax. `keep` is
// min_tokens_to_keep. Ties: the lower id ranks first. `row` must not be empty.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/selection/candidates.hpp"

namespace sabiyarn {

// Scratch memory of the filters.
struct FilterScratch {
  void reserve(std::size_t vocab_size);

  TopK top;
  std::vector<float> weights;
  std::vector<float> keys;
  std::vector<std::uint32_t> order;
  std::vector<std::uint8_t> kept;
  std::vector<double> bucket_mass;
  std::vector<std::uint32_t> bucket_count;
};

// Keeps the fewest best tokens whose mass reaches p. Source: Holtzman et al., arXiv 1904.09751, section 3.1.
void filter_top_p(Candidates& row, double p, std::size_t keep, FilterScratch& scratch);

// Removes tokens with p_i < min_p * p_max. Source: Nguyen et al., arXiv 2407.01082.
void filter_min_p(Candidates& row, double min_p, std::size_t keep, FilterScratch& scratch);

// Keeps the fewest tokens nearest to |-log p - H| = 0 whose mass reaches `mass`, with ties. H is the entropy.
// Source: Meister et al., arXiv 2202.00666.
void filter_typical_p(Candidates& row, double mass, std::size_t keep, FilterScratch& scratch);

// Removes tokens with p_i < epsilon. Eta sampling takes min(epsilon, sqrt(epsilon) * exp(-H)) as its threshold.
// Source: Hewitt et al., arXiv 2210.15191.
void filter_epsilon(Candidates& row, double epsilon, std::size_t keep, FilterScratch& scratch);
void filter_eta(Candidates& row, double epsilon, std::size_t keep, FilterScratch& scratch);

// log_softmax over the candidates.
void renormalize(Candidates& row);

}  // namespace sabiyarn
