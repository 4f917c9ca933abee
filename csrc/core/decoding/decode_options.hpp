// csrc/core/decoding/decode_options.hpp - how to choose tokens: names and defaults of Hugging Face's GenerationConfig.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/decoding/token_history.hpp"

namespace sabiyarn {

class TokenBytes;

enum class EarlyStopping { no, yes, never };

// `bias` is added to the score of the last id where the ids before it are the row's newest.
struct SequenceBias {
  std::vector<TokenId> ids;
  float bias = 0.0f;
};

struct DecodeOptions {
  // Length. max_new_tokens wins over max_length (which counts the prompt); one of them must be set.
  std::optional<std::int64_t> max_new_tokens;
  std::optional<std::int64_t> max_length;
  std::int64_t min_length = 0;      // prompt included; ignored if min_new_tokens is set
  std::int64_t min_new_tokens = 0;  // prompt not included

  // Search.
  bool do_sample = false;
  std::int64_t num_beams = 1;
  std::int64_t num_return_sequences = 1;
  EarlyStopping early_stopping = EarlyStopping::no;
  double length_penalty = 1.0;

  // Scores, with and without sampling.
  std::vector<SequenceBias> sequence_bias;
  double repetition_penalty = 1.0;
  std::int64_t penalty_window = 0;  // newest ids that repetition_penalty counts; 0: all
  double frequency_penalty = 0.0;   // OpenAI: times the number of times an id was generated
  double presence_penalty = 0.0;    // OpenAI: once for each id that was generated
  std::int64_t no_repeat_ngram_size = 0;
  std::vector<std::vector<TokenId>> bad_words_ids;
  std::optional<TokenId> forced_bos_token_id;
  std::vector<TokenId> forced_eos_token_id;
  std::vector<TokenId> suppress_tokens;
  std::vector<TokenId> begin_suppress_tokens;

  // Scores, when sampling.
  double temperature = 1.0;
  std::int64_t top_k = 50;  // 0: off
  double top_p = 1.0;
  std::optional<double> min_p;
  double typical_p = 1.0;
  double epsilon_cutoff = 0.0;
  double eta_cutoff = 0.0;
  bool renormalize_logits = false;  // also without sampling

  // Ends.
  std::vector<TokenId> eos_token_id;  // empty: no end token
  std::vector<std::string> stop_strings;
  std::shared_ptr<const TokenBytes> token_bytes;  // needed by stop_strings
  std::optional<double> max_time_s;               // seconds since the DecodeState was made

  // One seed for each output (num_return_sequences for each prompt, adjacent), or one for all: then each gives
  // what it gives alone. derived_seed() makes many of one.
  std::vector<std::uint64_t> seeds = {0};
  bool return_scores = false;
};

// Throws std::invalid_argument for an option that is out of range; the text has the value and the range.
void validate(const DecodeOptions& options, std::int64_t vocab_size);

}  // namespace sabiyarn
