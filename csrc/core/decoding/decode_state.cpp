#include "core/decoding/decode_state.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "core/selection/random.hpp"
#include "core/selection/row_math.hpp"

namespace sabiyarn {
namespace {

DecodeOptions checked(DecodeOptions options, std::int64_t vocab_size) {
  validate(options, vocab_size);
  return options;
}

void check_prompt(const std::vector<TokenId>& prompt, std::int64_t vocab_size) {
  if (prompt.empty()) throw std::invalid_argument("a prompt is empty: it needs at least one token");
  for (const TokenId id : prompt) {
    if (id < 0 || id >= vocab_size) {
      throw std::invalid_argument("a prompt holds token id " + std::to_string(id) +
                                  ", but the vocabulary has ids 0 to " + std::to_string(vocab_size - 1));
    }
  }
}

std::size_t checked_max_length(const DecodeOptions& options, std::size_t prompt_length) {
  if (options.max_new_tokens) return prompt_length + static_cast<std::size_t>(*options.max_new_tokens);
  if (*options.max_length <= static_cast<std::int64_t>(prompt_length)) {
    throw std::invalid_argument("prompt has " + std::to_string(prompt_length) +
                                " tokens, but max_length is " + std::to_string(*options.max_length) +
                                " and counts the prompt: raise it, or set max_new_tokens");
  }
  return static_cast<std::size_t>(*options.max_length);
}

}  // namespace

DecodeState::DecodeState(DecodeOptions options, std::int64_t vocab_size,
                         const std::vector<std::vector<TokenId>>& prompts)
    : options_(checked(std::move(options), vocab_size)),
      vocab_size_(static_cast<std::size_t>(vocab_size)),
      num_prompts_(prompts.size()),
      start_(std::chrono::steady_clock::now()),
      pipeline_(options_),
      sampler_(options_),
      beam_candidates_(options_, vocab_size_) {
  if (prompts.empty()) throw std::invalid_argument("prompts is empty: give at least one");
  if (options_.seeds.size() != 1 && options_.seeds.size() != num_outputs()) {
    throw std::invalid_argument(std::to_string(options_.seeds.size()) + " seeds for " +
                                std::to_string(num_outputs()) + " outputs: give one for all or one for each");
  }
  if (!options_.stop_strings.empty()) stop_strings_.emplace(options_.stop_strings, *options_.token_bytes);
  searches_.reserve(has_beams() ? prompts.size() : 0);
  outputs_.reserve(has_beams() ? 0 : num_outputs());
  for (const auto& prompt : prompts) {
    check_prompt(prompt, vocab_size);
    const std::size_t max_length = checked_max_length(options_, prompt.size());
    const auto index = static_cast<std::int32_t>(rows_.size());
    rows_.push_back({index, has_beams() ? 0 : static_cast<std::int32_t>(outputs_.size())});
    row_sources_.push_back(index);
    next_tokens_.push_back(prompt.back());
    next_positions_.push_back(static_cast<std::int64_t>(prompt.size()) - 1);
    if (has_beams()) {
      searches_.emplace_back(options_, prompt, max_length);
      continue;
    }
    for (std::size_t i = 0; i < num_returns(); ++i) {
      outputs_.push_back({Hypothesis(prompt, max_length - prompt.size(), options_.return_scores), max_length,
                          FinishReason::none});
    }
  }

  const std::size_t most_rows =
      prompts.size() * (has_beams() ? static_cast<std::size_t>(options_.num_beams) : num_returns());
  const std::size_t most_candidates =
      has_beams() ? prompts.size() * searches_[0].num_candidates() : outputs_.size();
  rows_.reserve(most_rows);
  next_rows_.reserve(most_rows);
  row_sources_.reserve(most_rows);
  next_tokens_.reserve(most_rows);
  next_positions_.reserve(most_rows);
  allowed_.resize(most_rows);
  candidates_.reserve(most_candidates);
  beam_choice_.reserve(has_beams() ? most_candidates : 0);
  beam_reasons_.reserve(has_beams() ? most_candidates : 0);
  last_tokens_.reserve(outputs_.size());
}

std::uint64_t DecodeState::seed_of(std::size_t output) const {
  return options_.seeds[options_.seeds.size() == 1 ? 0 : output];
}

const Hypothesis& DecodeState::hypothesis_of(const Row& row) const {
  const auto place = static_cast<std::size_t>(row.place);
  if (!has_beams()) return outputs_[place].hypothesis;
  return searches_[static_cast<std::size_t>(row.prompt)].running(place);
}

const Hypothesis& DecodeState::hypothesis(std::size_t output) const {
  if (output >= num_outputs()) throw std::out_of_range("there is no output " + std::to_string(output));
  if (!has_beams()) return outputs_[output].hypothesis;
  return searches_[output / num_returns()].finished(output % num_returns()).hypothesis;
}

FinishReason DecodeState::finish_reason(std::size_t output) const {
  if (!has_beams()) return outputs_.at(output).reason;
  const BeamSearch& search = searches_.at(output / num_returns());
  return search.closed() ? search.finished(output % num_returns()).reason : FinishReason::none;
}

float DecodeState::sequence_score(std::size_t output) const {
  if (!has_beams()) throw std::invalid_argument("sequences have scores only with num_beams above 1");
  return searches_.at(output / num_returns()).finished(output % num_returns()).score;
}

std::span<const TokenId> DecodeState::certain_tokens(std::size_t output) const {
  if (!has_beams()) return outputs_.at(output).hypothesis.history.generated();
  const BeamSearch& search = searches_.at(output / num_returns());
  const std::size_t rank = output % num_returns();
  if (search.closed()) return search.finished(rank).hypothesis.history.generated();
  return search.running(0).history.generated().first(search.certain_length(rank));
}

void DecodeState::set_allowed_tokens(std::size_t row, std::optional<std::vector<TokenId>> allowed) {
  if (row >= rows_.size()) throw std::out_of_range("there is no row " + std::to_string(row));
  if (allowed && allowed->empty()) {
    throw std::invalid_argument("no token is allowed in row " + std::to_string(row) +
                                ": nothing could be chosen");
  }
  for (const TokenId id : allowed.value_or(std::vector<TokenId>{})) {
    if (id < 0 || static_cast<std::size_t>(id) >= vocab_size_) {
      throw std::invalid_argument("allowed token id " + std::to_string(id) +
                                  " is not in the vocabulary, 0 to " + std::to_string(vocab_size_ - 1));
    }
  }
  allowed_[row] = std::move(allowed);
}

void DecodeState::process(float* logits) {
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    const std::span<float> scores = row_scores(logits, row);
    if (has_beams()) log_softmax(scores, row);
    const auto prompt = static_cast<std::size_t>(rows_[row].prompt);
    const std::size_t max_length = has_beams()
                                       ? searches_[prompt].max_length()
                                       : outputs_[static_cast<std::size_t>(rows_[row].place)].max_length;
    pipeline_.apply(scores, hypothesis_of(rows_[row]).history, max_length, allowed_[row]);
  }
}

std::span<std::uint32_t> DecodeState::token_masks() {
  if (token_masks_.empty()) token_masks_.resize(allowed_.size() * mask_words());
  return token_masks_;
}

void DecodeState::apply_token_masks(float* logits) const {
  if (token_masks_.empty()) return;
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    keep_only(row_scores(logits, row), TokenMask(token_masks_).subspan(row * mask_words(), mask_words()));
  }
}

void DecodeState::propose(float* logits) {
  candidates_.clear();
  no_token_left_ = false;
  apply_token_masks(logits);
  try {
    if (has_beams()) {
      propose_beams(logits);
    } else {
      propose_tokens(logits);
    }
  } catch (const NoTokenLeft&) {
    no_token_left_ = true;
    throw;
  }
}

void DecodeState::propose_tokens(float* logits) {
  const std::size_t draws = forked_ ? 1 : num_returns();
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    const auto source = static_cast<std::int32_t>(row);
    const std::span<float> scores = row_scores(logits, row);
    if (!options_.do_sample) {
      if (options_.renormalize_logits) log_softmax(scores, row);
      const TokenId token = checked_argmax(scores, row);
      float token_score = 0.0f;
      if (options_.return_scores) {
        token_score = -static_cast<float>(log_sum_exp(scores, scores[static_cast<std::size_t>(token)]));
      }
      candidates_.push_back({source, token, token_score});
      continue;
    }
    if (sampler_.filter(scores, row).size() == 0) refuse_removed_row(row);
    sampler_.begin_draws();
    const auto first = static_cast<std::size_t>(rows_[row].place);
    const auto step = static_cast<std::uint32_t>(outputs_[first].hypothesis.history.generated_length());
    for (std::size_t output = first; output < first + draws; ++output) {
      const Sampler::Draw draw = sampler_.draw(uniform(seed_of(output), 0, step));
      candidates_.push_back({source, draw.token, draw.log_probability});
    }
  }
}

void DecodeState::propose_beams(float* logits) {
  beam_choice_.clear();
  const std::size_t beams = forked_ ? static_cast<std::size_t>(options_.num_beams) : 1;
  for (std::size_t row = 0; row < rows_.size(); row += beams) {
    const BeamSearch& search = searches_[static_cast<std::size_t>(rows_[row].prompt)];
    const std::span<float> scores = row_scores(logits, row, beams);
    if (options_.renormalize_logits && !options_.do_sample) {
      for (std::size_t beam = row; beam < row + beams; ++beam) {
        const std::span<float> one = row_scores(logits, beam);
        if (!std::isinf(checked_maximum(one, beam))) log_softmax(one, beam);  // a beam may have no token left
      }
    }
    const std::span<const BeamCandidate> choice =
        options_.do_sample
            ? beam_candidates_.drawn(search, scores, vocab_size_, row, sampler_,
                                     seed_of(static_cast<std::size_t>(rows_[row].prompt) * num_returns()))
            : beam_candidates_.best(search, scores, vocab_size_, row);
    for (const BeamCandidate& candidate : choice) {
      beam_choice_.push_back(candidate);
      const auto source = static_cast<std::int32_t>(row) + (forked_ ? candidate.beam : 0);
      candidates_.push_back({source, candidate.token, candidate.token_score});
    }
  }
}

FinishReason DecodeState::interruption() const noexcept {
  if (options_.max_time_s) {
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start_;
    if (spent.count() > *options_.max_time_s) return FinishReason::time;
  }
  return cancelled_.load(std::memory_order_relaxed) ? FinishReason::cancelled : FinishReason::none;
}

FinishReason DecodeState::reason_after(const TokenHistory& history, TokenId token, std::size_t max_length,
                                       bool extra_hit, FinishReason outside) const {
  const auto& ends = options_.eos_token_id;
  if (std::find(ends.begin(), ends.end(), token) != ends.end()) return FinishReason::eos;
  if (extra_hit || (stop_strings_ && stop_strings_->completed_by(history.ids(), token)))
    return FinishReason::stop;
  if (history.length() + 1 >= max_length) return FinishReason::length;
  return outside;
}

std::size_t DecodeState::expected_candidates() const noexcept {
  if (!has_beams()) return rows_.size() * (forked_ ? 1 : num_returns());
  return rows_.size() / (forked_ ? static_cast<std::size_t>(options_.num_beams) : 1) *
         searches_[0].num_candidates();
}

void DecodeState::add_next_row(Row row, std::int32_t source, TokenId token, std::size_t length) {
  next_rows_.push_back(row);
  row_sources_.push_back(source);
  next_tokens_.push_back(token);
  next_positions_.push_back(static_cast<std::int64_t>(length) - 1);
}

void DecodeState::commit(const std::uint8_t* extra_hits) {
  if (finished() || candidates_.size() != expected_candidates()) {
    throw std::invalid_argument("commit: nothing was proposed for this step");
  }
  next_rows_.clear();
  row_sources_.clear();
  next_tokens_.clear();
  next_positions_.clear();
  if (has_beams()) {
    commit_beams(extra_hits);
  } else {
    commit_tokens(extra_hits);
  }
  keeps_rows_ = next_rows_.size() == rows_.size();
  for (std::size_t row = 0; keeps_rows_ && row < row_sources_.size(); ++row)
    keeps_rows_ = row_sources_[row] == static_cast<std::int32_t>(row);
  rows_.swap(next_rows_);
  forked_ = true;
  candidates_.clear();
  for (auto& allowed : allowed_) allowed.reset();
  if (finished()) {  // only the results are still wanted, for as long as others of the same call run
    pipeline_.release();
    sampler_.release();
    beam_candidates_.release();
  }
}

void DecodeState::commit_tokens(const std::uint8_t* extra_hits) {
  const FinishReason outside = interruption();
  const std::size_t draws = forked_ ? 1 : num_returns();
  last_tokens_.clear();
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    const auto [source, token, token_score] = candidates_[i];
    const Row from = rows_[static_cast<std::size_t>(source)];
    const Row row{from.prompt, from.place + static_cast<std::int32_t>(i % draws)};
    Output& output = outputs_[static_cast<std::size_t>(row.place)];
    const bool extra_hit = extra_hits != nullptr && extra_hits[i] != 0;
    output.reason = reason_after(output.hypothesis.history, token, output.max_length, extra_hit, outside);
    output.hypothesis.append(token, token_score);
    last_tokens_.push_back({row.place, token, output.reason});
    if (output.reason == FinishReason::none)
      add_next_row(row, source, token, output.hypothesis.history.length());
  }
}

void DecodeState::commit_beams(const std::uint8_t* extra_hits) {
  const FinishReason outside = interruption();
  const std::size_t beams = static_cast<std::size_t>(options_.num_beams);
  const std::size_t rows_each = forked_ ? beams : 1;
  for (std::size_t first = 0, row = 0; row < rows_.size(); row += rows_each) {
    const std::int32_t prompt = rows_[row].prompt;
    BeamSearch& search = searches_[static_cast<std::size_t>(prompt)];
    const auto choice = std::span<const BeamCandidate>(beam_choice_).subspan(first, search.num_candidates());
    beam_reasons_.clear();
    for (std::size_t i = 0; i < choice.size(); ++i) {
      const TokenHistory& history = search.running(static_cast<std::size_t>(choice[i].beam)).history;
      const bool extra_hit = extra_hits != nullptr && extra_hits[first + i] != 0;
      beam_reasons_.push_back(
          reason_after(history, choice[i].token, search.max_length(), extra_hit, outside));
    }
    first += choice.size();
    search.commit(choice, beam_reasons_);
    if (search.closed()) continue;
    for (std::size_t beam = 0; beam < beams; ++beam) {
      const TokenHistory& history = search.running(beam).history;
      const auto source = static_cast<std::int32_t>(row) + (forked_ ? search.sources()[beam] : 0);
      add_next_row({prompt, static_cast<std::int32_t>(beam)}, source, history.ids().back(), history.length());
    }
  }
}

}  // namespace sabiyarn
