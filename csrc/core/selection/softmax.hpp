// csrc/core/selection/softmax.hpp - exp(score - maximum) of a row, and its sum.
//
// The sum has a fixed order: 16 chains over blocks of 512 floats, then float64. With AVX2 eight lanes are computed at
// once instead of four, with the same bits.
#pragma once

#include <cstddef>
#include <span>

namespace sabiyarn {

// `maximum` must be finite and not below any of the scores.
double sum_of_exp(std::span<const float> scores, float maximum) noexcept;
// Returns the same sum and writes each summand: weights[i] = exp(scores[i] - maximum). weights has as many floats as
// scores.
double exp_weights(std::span<const float> scores, float maximum, float* weights) noexcept;

// Defines the bits that every path must give.
double exp_weights_baseline(std::span<const float> scores, float maximum, float* weights) noexcept;

}  // namespace sabiyarn
