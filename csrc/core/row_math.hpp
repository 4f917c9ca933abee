// csrc/core/row_math.hpp - passes over one row of scores (float32, one score for each token id).
#pragma once

#include <cstddef>
#include <span>

#include "core/token_history.hpp"

namespace sabiyarn {

// The largest score of a row that can be decoded. Throws std::invalid_argument "scores: row <row> ..." if
// there is NaN, if every score is -inf, or if the largest is +inf.
float checked_maximum(std::span<const float> scores, std::size_t row);

// The lowest id that has the largest score; throws as above (but +inf is a score that can be chosen).
TokenId checked_argmax(std::span<const float> scores, std::size_t row);

// log(sum(exp(scores - maximum))), in blocks, the same on every CPU.
double log_sum_exp(std::span<const float> scores, float maximum) noexcept;

// scores - maximum - log_sum_exp; throws as checked_maximum.
void log_softmax(std::span<float> scores, std::size_t row);

}  // namespace sabiyarn
