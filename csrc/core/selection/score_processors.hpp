// csrc/core/selection/score_processors.hpp - the functions of the score pipeline that work with and without sampling.
//
// Each changes one row of scores in place, like the processor of the same name in Hugging Face transformers 4.57
// (transformers/generation/logits_process.py). `ids` are the row's prompt and output so far. A removal sets -inf.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "core/decoding/decode_options.hpp"
#include "core/decoding/token_history.hpp"

namespace sabiyarn {

using Scores = std::span<float>;
using Ids = std::span<const TokenId>;

// One bit for each token id, the lowest bit of a word first: 1 allows it. Bits beyond the last id mean nothing.
using TokenMask = std::span<const std::uint32_t>;
constexpr std::size_t kMaskBits = 32;  // of a word

// Scratch that counts occurrences of ids: one zero for each id before and after a call.
using IdCounts = std::vector<std::uint32_t>;
// Scratch that sums biases: one zero for each id before and after a call.
using IdBiases = std::vector<float>;

// s + sum of the biases of all sequences that this id would complete. As in the reference, a sequence longer than
// the row is ignored, although its last id is not needed for the match.
void apply_sequence_bias(Scores scores, Ids ids, std::span<const SequenceBias> biases, IdBiases& scratch);

// For each distinct id among the last `window` (0: all): s * penalty if s < 0, else s / penalty.
// Source: Keskar et al., "CTRL", arXiv 1909.05858, section 4.1, with the sign rule of the reference.
void apply_repetition_penalty(Scores scores, Ids ids, float penalty, std::size_t window, IdCounts& scratch);

// s - count * frequency - (count > 0) * presence, counting what was generated.
// Source: OpenAI API documentation, "Frequency and presence penalties".
void apply_openai_penalties(Scores scores, Ids generated, float frequency, float presence, IdCounts& scratch);

// Removes each id that would repeat an n-gram of `ids`. Source: Paulus et al., arXiv 1705.04304, section 2.5.
void ban_repeated_ngrams(Scores scores, Ids ids, std::size_t ngram_size);

// Removes the last id of every bad word whose other ids are the row's newest.
void ban_bad_words(Scores scores, Ids ids, std::span<const std::vector<TokenId>> bad_words);

void ban(Scores scores, Ids banned);

// Removes all other ids; the allowed ones keep their score. Each id must be in range.
void keep_only(Scores scores, Ids allowed, IdCounts& scratch);

// The same for a mask, which has a bit for each id.
void keep_only(Scores scores, TokenMask allowed);

// Removes all other ids; the forced ones get score 0.
void force(Scores scores, Ids forced);

}  // namespace sabiyarn
