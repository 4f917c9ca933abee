// csrc/core/selection/sampling_filters.hpp - what sampling removes from the candidates of a row.
//
// Formulas are those of Hugging Face transformers 4.57 (transformers/generation/logits_process.py,
// "warpers"), applied to the candidates only: a removed token has probability 0 in every softmax that follows.
// `keep` is min_tokens_to_keep. Equal scores: the lower id ranks first. `row` must not be empty.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "core/selection/candidates.hpp"

namespace sabiyarn {

// Memory that the filters use.
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

// Holtzman et al., arXiv 1904.09751, section 3.1: the fewest best tokens whose mass reaches p.
void filter_top_p(Candidates& row, double p, std::size_t keep, FilterScratch& scratch);

// Nguyen et al., arXiv 2407.01082: tokens with p_i < min_p * p_max are removed.
void filter_min_p(Candidates& row, double min_p, std::size_t keep, FilterScratch& scratch);

// Meister et al., arXiv 2202.00666: the fewest tokens nearest to |-log p - H| = 0 whose mass reaches `mass`,
// with ties.
void filter_typical_p(Candidates& row, double mass, std::size_t keep, FilterScratch& scratch);

// Hewitt et al., arXiv 2210.15191: tokens with p_i < epsilon are removed; eta sampling takes
// min(epsilon, sqrt(epsilon) * exp(-H)) instead.
void filter_epsilon(Candidates& row, double epsilon, std::size_t keep, FilterScratch& scratch);
void filter_eta(Candidates& row, double epsilon, std::size_t keep, FilterScratch& scratch);

// log_softmax over the candidates.
void renormalize(Candidates& row);

}  // namespace sabiyarn
