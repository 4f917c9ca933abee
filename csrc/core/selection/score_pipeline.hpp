// csrc/core/selection/score_pipeline.hpp - the processors of score_processors.hpp, in the reference's order, for one
// set of options.
#pragma once

#include <cstddef>
#include <optional>

#include "core/decoding/decode_options.hpp"
#include "core/selection/score_processors.hpp"

namespace sabiyarn {

class ScorePipeline {
 public:
  // `options` must outlive the pipeline and have been validated.
  ScorePipeline(const DecodeOptions& options, std::size_t vocab_size);

  // From sequence_bias to begin_suppress_tokens.
  //   max_length: of this row, prompt included; allowed: the ids that prefix_allowed_tokens_fn returned, if
  //   there is one.
  void apply(Scores scores, const TokenHistory& history, std::size_t max_length,
             const std::optional<std::vector<TokenId>>& allowed);

 private:
  const DecodeOptions& options_;
  std::vector<std::vector<TokenId>> bad_words_;  // without the end tokens, which cannot be bad words
  IdCounts counts_;
  IdBiases biases_;
};

}  // namespace sabiyarn
