// csrc/core/selection/score_pipeline.hpp - applies the processors of score_processors.hpp in the reference's order.
#pragma once

#include <cstddef>
#include <optional>

#include "core/decoding/decode_options.hpp"
#include "core/selection/score_processors.hpp"

namespace sabiyarn {

class ScorePipeline {
 public:
  // `options` must be validated and outlive the pipeline. Memory for a row, 4 bytes for each id, is taken by the first
  // processor that needs it.
  explicit ScorePipeline(const DecodeOptions& options);

  // Applies all processors from sequence_bias to begin_suppress_tokens.
  //   max_length: of this row, prompt included
  //   allowed:    the ids that prefix_allowed_tokens_fn returned, if there is one
  void apply(Scores scores, const TokenHistory& history, std::size_t max_length,
             const std::optional<std::vector<TokenId>>& allowed);

  // Gives that memory back.
  void release() noexcept {
    counts_ = IdCounts();
    biases_ = IdBiases();
  }

 private:
  IdCounts& counts(std::size_t vocab_size) {
    counts_.resize(vocab_size);
    return counts_;
  }

  const DecodeOptions& options_;
  std::vector<std::vector<TokenId>> bad_words_;  // without the end tokens, which cannot be bad words
  IdCounts counts_;                              // zeros between two uses, like biases_
  IdBiases biases_;
};

}  // namespace sabiyarn
