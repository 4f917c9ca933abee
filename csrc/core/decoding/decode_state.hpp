// csrc/core/decoding/decode_state.hpp - one run of decoding: which rows the model computes next, and what came out.
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
#include <vector>

#include "core/decoding/decode_options.hpp"
#include "core/decoding/finish_reason.hpp"
#include "core/decoding/stop_strings.hpp"
#include "core/selection/beam_candidates.hpp"
#include "core/selection/beam_search.hpp"
#include "core/selection/hypothesis.hpp"
#include "core/selection/sampler.hpp"
#include "core/selection/score_pipeline.hpp"

namespace sabiyarn {

class DecodeState {
 public:
  // Throws std::invalid_argument for options or prompts that cannot be decoded.
  DecodeState(DecodeOptions options, std::int64_t vocab_size,
              const std::vector<std::vector<TokenId>>& prompts);
  DecodeState(const DecodeState&) = delete;
  DecodeState& operator=(const DecodeState&) = delete;

  // --- what the model computes next
  std::int64_t num_rows() const noexcept { return static_cast<std::int64_t>(rows_.size()); }
  std::int64_t vocab_size() const noexcept { return static_cast<std::int64_t>(vocab_size_); }
  bool finished() const noexcept { return rows_.empty(); }
  // [num_rows] each: the row of the step before that this row continues; its newest token; that token's
  // position.
  const std::int32_t* row_sources() const noexcept { return row_sources_.data(); }
  const std::int64_t* next_tokens() const noexcept { return next_tokens_.data(); }
  const std::int64_t* next_positions() const noexcept { return next_positions_.data(); }

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
  std::span<const TokenId> history_of(std::size_t row) const {
    return hypothesis_of(rows_.at(row)).history.ids();
  }
  // Only these tokens are allowed in this step (prefix_allowed_tokens_fn); call before process.
  void set_allowed_tokens(std::size_t row, std::optional<std::vector<TokenId>> allowed);
  // What propose chose: with beams K for each prompt that is still open, else one for each output that is.
  struct Candidate {
    std::int32_t row;  // whose history it extends
    TokenId token;
    float token_score;  // log-probability under the processed scores; without beams only if return_scores
  };
  std::span<const Candidate> candidates() const noexcept { return candidates_; }

  // From any thread; the next commit ends every row.
  void cancel() noexcept { cancelled_.store(true, std::memory_order_relaxed); }
  // What will end every row at the next commit: time, cancelled or none. A long prefill asks between its
  // chunks.
  FinishReason interruption() const noexcept;

  // --- results; outputs are num_return_sequences for each prompt, adjacent, with beams best first
  struct NewToken {
    std::int32_t output;
    TokenId token;
    FinishReason reason;
  };
  std::span<const NewToken> last_tokens() const noexcept {
    return last_tokens_;
  }  // of the last commit; none with beams
  // The generated tokens of an output that will never change. With beams: what all that can still
  // become this output have in common.
  std::span<const TokenId> certain_tokens(std::size_t output) const;

  std::size_t num_outputs() const noexcept { return num_prompts_ * num_returns(); }
  std::span<const TokenId> sequence(std::size_t output) const { return hypothesis(output).history.ids(); }
  // none while it goes on; with beams also where no further sequence was found than those before it.
  FinishReason finish_reason(std::size_t output) const;
  // token_score of each generated token, if return_scores. With beams their sum / length^length_penalty is
  // the sequence's score.
  std::span<const float> scores(std::size_t output) const { return hypothesis(output).scores; }
  float sequence_score(std::size_t output) const;  // with beams only

 private:
  struct Row {
    std::int32_t prompt;
    std::int32_t
        place;  // with beams: which beam; else which output (before the first commit the first of several)
  };
  // One sequence of a run without beams.
  struct Output {
    Hypothesis hypothesis;
    std::size_t max_length;  // prompt included
    FinishReason reason;
  };

  bool has_beams() const noexcept { return options_.num_beams > 1; }
  std::size_t num_returns() const noexcept { return static_cast<std::size_t>(options_.num_return_sequences); }
  std::uint64_t seed_of(std::int32_t prompt) const;
  std::span<float> row_scores(float* logits, std::size_t row, std::size_t count = 1) const noexcept {
    return {logits + row * vocab_size_, count * vocab_size_};
  }
  const Hypothesis& hypothesis_of(const Row& row) const;
  const Hypothesis& hypothesis(std::size_t output) const;

  void propose_tokens(float* logits);
  void propose_beams(float* logits);
  void commit_tokens(const std::uint8_t* extra_hits);
  void commit_beams(const std::uint8_t* extra_hits);
  std::size_t expected_candidates() const noexcept;
  void add_next_row(Row row, std::int32_t source, TokenId token, std::size_t length);

  FinishReason reason_after(const TokenHistory& history, TokenId token, std::size_t max_length,
                            bool extra_hit, FinishReason outside) const;

  const DecodeOptions options_;
  const std::size_t vocab_size_;
  const std::size_t num_prompts_;
  const std::chrono::steady_clock::time_point start_;
  ScorePipeline pipeline_;
  Sampler sampler_;
  std::optional<StopStrings> stop_strings_;
  std::atomic<bool> cancelled_ = false;

  bool forked_ = false;  // has the first commit split each prompt into its beams or outputs?
  std::vector<Row> rows_;
  std::vector<Row> next_rows_;
  std::vector<std::int32_t> row_sources_;
  std::vector<std::int64_t> next_tokens_;
  std::vector<std::int64_t> next_positions_;
  std::vector<std::optional<std::vector<TokenId>>> allowed_;

  std::vector<Candidate> candidates_;
  std::vector<NewToken> last_tokens_;
  std::vector<Output> outputs_;  // without beams

  std::vector<BeamSearch> searches_;  // with beams: one for each prompt
  BeamCandidates beam_candidates_;
  std::vector<BeamCandidate> beam_choice_;  // of all open searches
  std::vector<FinishReason> beam_reasons_;
};

}  // namespace sabiyarn
