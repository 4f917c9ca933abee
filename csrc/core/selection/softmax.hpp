// csrc/core/selection/softmax.hpp - exp(score - maximum) of a whole row, and its sum.
//
// The sum is taken in a fixed order: 16 chains over blocks of 512 floats, then in float64. AVX2, where the
// CPU has it, computes eight lanes at once instead of four with the same bits.
#pragma once

#include <cstddef>
#include <span>

namespace sabiyarn {

// `maximum` must be finite and not below any of the scores.
double sum_of_exp(std::span<const float> scores, float maximum) noexcept;
// The same sum, and each summand: weights[i] = exp(scores[i] - maximum). weights has as many floats as
// scores.
double exp_weights(std::span<const float> scores, float maximum, float* weights) noexcept;

// The definition that every path must equal, bit for bit.
double exp_weights_baseline(std::span<const float> scores, float maximum, float* weights) noexcept;

// The path chosen on this CPU: "avx2" or "baseline" (SSE2, NEON or none).
const char* softmax_path() noexcept;

}  // namespace sabiyarn
