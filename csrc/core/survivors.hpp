// csrc/core/survivors.hpp - the tokens of one row that can still be drawn, and the filters of sampling over
// them.
//
// Formulas are those of Hugging Face transformers 4.57 (transformers/generation/logits_process.py,
// "warpers"), applied to the tokens above -inf only: a removed token has probability 0 in every softmax that
// follows. `keep` is min_tokens_to_keep. Equal scores: the lower id ranks first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/token_history.hpp"
#include "core/top_selection.hpp"

namespace sabiyarn {

struct Survivors {
  std::vector<TokenId> ids;  // ascending
  std::vector<float> scores;

  std::size_t size() const noexcept { return ids.size(); }
};

// Memory that the filters use; it grows to what the largest row needs, then stays.
struct FilterScratch {
  TopSelection top;
  std::vector<float> weights;
  std::vector<float> keys;
  std::vector<std::uint32_t> order;
  std::vector<std::uint8_t> kept;
  std::vector<double> bucket_mass;
  std::vector<std::uint32_t> bucket_count;
};

// All tokens above -inf, scores divided by the temperature.
void gather(std::span<const float> scores, float temperature, Survivors& result);

// The same, then top_k: tokens whose score is below the k-th largest are removed, ties with it stay. Fan et
// al., arXiv 1805.04833, section 5. One pass to find the k-th, one to collect; nothing else of the row is
// touched.
void gather_top_k(std::span<const float> scores, float temperature, std::size_t k, Survivors& result,
                  FilterScratch& scratch);

// exp(score - largest score) of each survivor into `weights`; returns their sum.
double softmax_weights(std::span<const float> scores, std::vector<float>& weights);

// Holtzman et al., arXiv 1904.09751, section 3.1: the fewest best tokens whose mass reaches p.
void filter_top_p(Survivors& row, double p, std::size_t keep, FilterScratch& scratch);

// Nguyen et al., arXiv 2407.01082: tokens with p_i < min_p * p_max are removed.
void filter_min_p(Survivors& row, double min_p, std::size_t keep, FilterScratch& scratch);

// Meister et al., arXiv 2202.00666: the fewest tokens nearest to |-log p - H| = 0 whose mass reaches `mass`,
// with ties.
void filter_typical_p(Survivors& row, double mass, std::size_t keep, FilterScratch& scratch);

// Hewitt et al., arXiv 2210.15191: tokens with p_i < epsilon are removed; eta sampling takes
// min(epsilon, sqrt(epsilon) * exp(-H)) instead.
void filter_epsilon(Survivors& row, double epsilon, std::size_t keep, FilterScratch& scratch);
void filter_eta(Survivors& row, double epsilon, std::size_t keep, FilterScratch& scratch);

// log_softmax over the survivors.
void renormalize(Survivors& row, FilterScratch& scratch);

}  // namespace sabiyarn
