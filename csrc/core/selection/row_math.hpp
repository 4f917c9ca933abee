// csrc/core/selection/row_math.hpp - passes over one row of scores (float32, one score for each token id).
#pragma once

#include <cstddef>
#include <span>

#include "core/decoding/token_history.hpp"

namespace sabiyarn {

// The largest score of a row; -inf if every token has been removed. Throws std::invalid_argument "scores: row
// <row> ..." if there is NaN, or if the largest is +inf: such a row has no probabilities.
float checked_maximum(std::span<const float> scores, std::size_t row);

// Throws std::invalid_argument "scores: row <row> is -inf for every token ...".
[[noreturn]] void refuse_removed_row(std::size_t row);

// The lowest id that has the largest score. Throws as both above, but +inf is a score that can be chosen.
TokenId checked_argmax(std::span<const float> scores, std::size_t row);

// log(sum(exp(scores - maximum))).
double log_sum_exp(std::span<const float> scores, float maximum) noexcept;

// scores - maximum - log_sum_exp. Throws as both above.
void log_softmax(std::span<float> scores, std::size_t row);

}  // namespace sabiyarn
