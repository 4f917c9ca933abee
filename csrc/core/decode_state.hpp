// csrc/core/decode_state.hpp - one run of decoding: which rows the model computes next, and what came out.
//
// The caller owns the model. It computes logits for num_rows() rows, then calls process, propose and commit
// (or advance, which is the three), until finished(). Before the first commit the rows are the prompts' last
// positions; after each commit they are the live rows, and row_sources() says whose keys and values each
// continues: a prompt that forks into beams or into several returned sequences, a beam reorder and the
// disappearance of finished rows are one mechanism.
//
// Semantics are those of generate() in Hugging Face transformers 4.57; ties go to the lower token id. If
// process or propose throws, nothing has changed but the logits: the step can be repeated or the state
// dropped.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/decode_options.hpp"
#include "core/sampler.hpp"
#include "core/score_pipeline.hpp"
#include "core/token_history.hpp"

namespace sabiyarn {

enum class FinishReason { none, eos, stop, length, time, cancelled };
const char* name(FinishReason reason) noexcept;  // "" for none

class DecodeState {
 public:
  // Throws std::invalid_argument for options or prompts that cannot be decoded.
  DecodeState(DecodeOptions options, std::int64_t vocab_size,
              const std::vector<std::vector<TokenId>>& prompts);
  DecodeState(const DecodeState&) = delete;
  DecodeState& operator=(const DecodeState&) = delete;

  // --- what the model computes next
  std::int64_t num_rows() const noexcept { return static_cast<std::int64_t>(rows_.size()); }
  bool finished() const noexcept { return rows_.empty(); }
  const std::int32_t* row_sources() const noexcept {
    return row_sources_.data();
  }  // [num_rows] rows of the step before
  const std::int64_t* next_tokens() const noexcept { return next_tokens_.data(); }  // [num_rows]
  const std::int64_t* next_positions() const noexcept {
    return next_positions_.data();
  }  // [num_rows] history length - 1
  std::int64_t vocab_size() const noexcept { return static_cast<std::int64_t>(vocab_size_); }

  // --- one step; logits are [num_rows, vocab_size] float32 in C order, overwritten
  // log_softmax (only with beams), then the pipeline up to begin_suppress_tokens.
  void process(float* logits);
  // Temperature ... renormalize_logits, then the choice of tokens. Throws "scores: row ..." for NaN or
  // nothing to choose.
  void propose(float* logits);
  // Appends the proposed tokens, ends what has ended and makes the next rows. extra_hits: null, or for each
  // candidate whether a stopping criterion of the caller holds after it.
  void commit(const std::uint8_t* extra_hits = nullptr);
  void advance(float* logits) {
    process(logits);
    propose(logits);
    commit();
  }

  // --- for callbacks between the parts of a step
  std::int32_t prompt_of(std::size_t row) const { return rows_.at(row).prompt; }
  std::span<const TokenId> history_of(std::size_t row) const;  // prompt and output of a row
  // Only these tokens are allowed in this step (prefix_allowed_tokens_fn); call before process.
  void set_allowed_tokens(std::size_t row, std::optional<std::vector<TokenId>> allowed);
  struct Candidate {
    std::int32_t row;  // whose history it extends
    TokenId token;
  };
  std::span<const Candidate> candidates() const noexcept { return candidates_; }

  // From any thread; the next commit ends every row.
  void cancel() noexcept { cancelled_.store(true, std::memory_order_relaxed); }

  // --- results
  struct NewToken {
    std::int32_t output;
    TokenId token;
    FinishReason reason;
  };
  std::span<const NewToken> last_tokens() const noexcept {
    return last_tokens_;
  }  // of the last commit; none with beams

  // Output rows: num_return_sequences for each prompt, adjacent.
  std::size_t num_outputs() const noexcept { return outputs_.size(); }
  std::span<const TokenId> sequence(std::size_t output) const { return outputs_.at(output).history.ids(); }
  FinishReason finish_reason(std::size_t output) const { return outputs_.at(output).reason; }
  // log p of each generated token under the processed scores, if return_scores.
  std::span<const float> scores(std::size_t output) const { return outputs_.at(output).scores; }

 private:
  struct Row {
    std::int32_t prompt;
    std::int32_t output;  // the first of the outputs that continue this row
  };
  struct Output {
    TokenHistory history;
    std::size_t max_length;  // prompt included
    FinishReason reason = FinishReason::none;
    std::vector<float> scores;
  };

  std::span<float> row_scores(float* logits, std::size_t row) const noexcept {
    return {logits + row * vocab_size_, vocab_size_};
  }
  bool searches_beams() const noexcept { return options_.num_beams > 1; }
  std::size_t outputs_per_row() const noexcept;  // how many outputs take a token from one row in this step
  FinishReason reason_after(const Output& output, TokenId token, bool extra_hit) const;

  const DecodeOptions options_;
  const std::size_t vocab_size_;
  const std::chrono::steady_clock::time_point start_;
  ScorePipeline pipeline_;
  Sampler sampler_;
  std::atomic<bool> cancelled_ = false;

  bool forked_ = false;  // has the first commit split each prompt into its outputs?
  std::vector<Row> rows_;
  std::vector<std::int32_t> row_sources_;
  std::vector<std::int64_t> next_tokens_;
  std::vector<std::int64_t> next_positions_;
  std::vector<std::optional<std::vector<TokenId>>> allowed_;

  std::vector<Candidate> candidates_;
  std::vector<float> candidate_scores_;  // log-probabilities, if return_scores
  std::vector<NewToken> last_tokens_;
  std::vector<Output> outputs_;
};

}  // namespace sabiyarn
