// tests/campaigns/arm/instructions/scalar_twins.hpp - what the core's vector loops compute, one value after another.
//
// Compiled without auto-vectorization. Results are the same, bit for bit: kernels.cpp checks it on each run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/selection/top_k.hpp"

namespace twins {

void float_to_half(const float* source, std::uint16_t* target, std::size_t count);
void half_to_float(const std::uint16_t* source, float* target, std::size_t count);

// The lowest index of the largest score; -1 if there is NaN or nothing above -inf.
std::int32_t argmax(std::span<const float> scores);

// weights[i] = exp(scores[i] - maximum), and their sum in the order of softmax.hpp.
double exp_weights(std::span<const float> scores, float maximum, float* weights);

void log_softmax(std::span<float> scores, float maximum, float log_sum);

// The k best, as TopK chooses them: the same buffer and threshold, every score compared by itself.
std::span<const sabiyarn::ScoredIndex> top_k(std::span<const float> scores, std::size_t k,
                                             std::vector<sabiyarn::ScoredIndex>& buffer);

// Ids and scores of the tokens with score >= cut; how many there are.
std::size_t collect(std::span<const float> scores, float cut, std::int32_t* ids, float* kept);

}  // namespace twins
