// csrc/core/decoding/decode_state.hpp - decodes one call: which rows the model computes next, and the generated tokens.
//
// The caller owns the model. Until finished(), it computes logits for num_rows() rows, then calls process, propose and
// commit (or advance, which calls all three). Before the first commit the rows are the prompts' last positions. After
// each commit they are the live rows, and row_sources() tells whose keys and values each row continues. Forking a
// prompt into beams or returned sequences, reordering beams and dropping finished rows all work this way.
//
// Semantics are those of generate() in Hugging Face transformers 4.57; ties go to the lower token id. If process or
// propose throws, only the logits have changed: repeat the step or drop the state.
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
  // Whether the last commit left every row where it was: row i continues row i, and none ended or split.
  bool keeps_rows() const noexcept { return keeps_rows_; }
  // [num_rows] each: the previous step's row that this row continues, its newest token, and that token's position.
  const std::int32_t* row_sources() const noexcept { return row_sources_.data(); }
  const std::int64_t* next_tokens() const noexcept { return next_tokens_.data(); }
  const std::int64_t* next_positions() const noexcept { return next_positions_.data(); }

  // --- one step; logits are [num_rows, vocab_size] float32 in C order, overwritten
  // Applies log_softmax (only with beams), then the pipeline up to begin_suppress_tokens.
  void process(float* logits);
  // Applies temperature ... renormalize_logits, then chooses tokens. Throws "scores: row ..." for NaN, or if no
  // token is left.
  void propose(float* logits);
  // Appends the proposed tokens, ends finished sequences and makes the next rows. extra_hits: null, or for each
  // candidate 1 if a stopping criterion of the caller holds after it.
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
  // Allows only these tokens in this step (prefix_allowed_tokens_fn). Call it before process.
  void set_allowed_tokens(std::size_t row, std::optional<std::vector<TokenId>> allowed);
  // A row of mask_words() words for each row, zeros at first: what propose may choose, whatever the processors and the
  // caller did to the scores. In force once this was called; then write the first num_rows() rows before each propose.
  std::span<std::uint32_t> token_masks();
  std::size_t mask_words() const noexcept { return vocab_size_ / kMaskBits + 1; }
  // True if the last propose threw because every token of a row was removed, not because of NaN.
  bool no_token_left() const noexcept { return no_token_left_; }
  // The choice of propose: with beams K candidates for each open prompt, else one for each open output.
  struct Candidate {
    std::int32_t row;  // the row that it extends
    TokenId token;
    float token_score;  // log-probability under the processed scores; without beams only if return_scores
  };
  std::span<const Candidate> candidates() const noexcept { return candidates_; }

  // May be called from any thread. The next commit ends every row.
  void cancel() noexcept { cancelled_.store(true, std::memory_order_relaxed); }
  // The reason that will end every row at the next commit: time, cancelled or none. A long prefill asks between chunks.
  FinishReason interruption() const noexcept;

  // --- results: num_return_sequences adjacent outputs for each prompt, with beams best first
  struct NewToken {
    std::int32_t output;
    TokenId token;
    FinishReason reason;
  };
  // The tokens of the last commit; none with beams.
  std::span<const NewToken> last_tokens() const noexcept { return last_tokens_; }
  // The generated tokens of an output that will never change. With beams: the common beginning of all sequences
  // that can still become this output.
  std::span<const TokenId> certain_tokens(std::size_t output) const;

  std::size_t num_outputs() const noexcept { return num_prompts_ * num_returns(); }
  std::span<const TokenId> sequence(std::size_t output) const { return hypothesis(output).history.ids(); }
  // FinishReason::none while the output is open; with beams also if fewer sequences were found.
  FinishReason finish_reason(std::size_t output) const;
  // token_score of each generated token, if return_scores. With beams the sequence's score is their sum /
  // length^length_penalty.
  std::span<const float> scores(std::size_t output) const { return hypothesis(output).scores; }
  float sequence_score(std::size_t output) const;  // with beams only

 private:
  struct Row {
    std::int32_t prompt;
    std::int32_t place;  // with beams the beam; else the output (before the first commit the prompt's first)
  };
  // One sequence of a call without beams.
  struct Output {
    Hypothesis hypothesis;
    std::size_t max_length;  // prompt included
    FinishReason reason;
  };

  bool has_beams() const noexcept { return options_.num_beams > 1; }
  std::size_t num_returns() const noexcept { return static_cast<std::size_t>(options_.num_return_sequences); }
  std::uint64_t seed_of(std::size_t output) const;
  std::span<float> row_scores(float* logits, std::size_t row, std::size_t count = 1) const noexcept {
    return {logits + row * vocab_size_, count * vocab_size_};
  }
  const Hypothesis& hypothesis_of(const Row& row) const;
  const Hypothesis& hypothesis(std::size_t output) const;

  void apply_token_masks(float* logits) const;
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

  bool keeps_rows_ = false;
  bool forked_ = false;  // true once the first commit has split each prompt into its beams or outputs
  std::vector<Row> rows_;
  std::vector<Row> next_rows_;
  std::vector<std::int32_t> row_sources_;
  std::vector<std::int64_t> next_tokens_;
  std::vector<std::int64_t> next_positions_;
  std::vector<std::optional<std::vector<TokenId>>> allowed_;
  std::vector<std::uint32_t> token_masks_;  // empty until they are asked for
  bool no_token_left_ = false;

  std::vector<Candidate> candidates_;
  std::vector<NewToken> last_tokens_;
  std::vector<Output> outputs_;  // without beams

  std::vector<BeamSearch> searches_;  // with beams: one for each prompt
  BeamCandidates beam_candidates_;
  std::vector<BeamCandidate> beam_choice_;  // of all open searches
  std::vector<FinishReason> beam_reasons_;
};

}  // namespace sabiyarn
