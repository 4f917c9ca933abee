// csrc/core/selection/row_math.hpp - passes over one row of scores (float32, one score for each token id).
#pragma once

#include <cstddef>
#include <span>
#include <stdexcept>

#include "core/decoding/token_history.hpp"

namespace sabiyarn {

// Returns the largest score of a row; -inf if every token has been removed. Throws std::invalid_argument
// "scores: row <row> ..." for NaN and for +inf: such a row has no probabilities.
float checked_maximum(std::span<const float> scores, std::size_t row);

// Nothing is wrong with a row's scores, but every token was removed.
class NoTokenLeft : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// Throws NoTokenLeft "scores: row <row> is -inf for every token ...".
[[noreturn]] void refuse_removed_row(std::size_t row);

// Returns the lowest id that has the largest score. Throws like checked_maximum and refuse_removed_row, but +inf can be
// chosen.
TokenId checked_argmax(std::span<const float> scores, std::size_t row);

// log(sum(exp(scores - maximum))).
double log_sum_exp(std::span<const float> scores, float maximum) noexcept;

// scores - maximum - log_sum_exp, in place. Throws like checked_maximum and refuse_removed_row.
void log_softmax(std::span<float> scores, std::size_t row);

}  // namespace sabiyarn
