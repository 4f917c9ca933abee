#include "core/decode_state.hpp"

#include <algorithm>
#include <stdexcept>

#include "core/random.hpp"
#include "core/row_math.hpp"

namespace sabiyarn {
namespace {

DecodeOptions checked(DecodeOptions options, std::int64_t vocab_size) {
  validate(options, vocab_size);
  return options;
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

const char* name(FinishReason reason) noexcept {
  switch (reason) {
    case FinishReason::eos:
      return "eos";
    case FinishReason::stop:
      return "stop";
    case FinishReason::length:
      return "length";
    case FinishReason::time:
      return "time";
    case FinishReason::cancelled:
      return "cancelled";
    case FinishReason::none:
      break;
  }
  return "";
}

DecodeState::DecodeState(DecodeOptions options, std::int64_t vocab_size,
                         const std::vector<std::vector<TokenId>>& prompts)
    : options_(checked(std::move(options), vocab_size)),
      vocab_size_(static_cast<std::size_t>(vocab_size)),
      start_(std::chrono::steady_clock::now()),
      pipeline_(options_, vocab_size_),
      sampler_(options_) {
  if (prompts.empty()) throw std::invalid_argument("prompts is empty: give at least one");
  if (options_.seeds.size() != 1 && options_.seeds.size() != prompts.size()) {
    throw std::invalid_argument(std::to_string(options_.seeds.size()) + " seeds for " +
                                std::to_string(prompts.size()) +
                                " prompts: give one for all or one for each");
  }
  if (searches_beams()) throw std::invalid_argument("num_beams above 1 is not available");
  const auto returns = static_cast<std::size_t>(options_.num_return_sequences);
  outputs_.reserve(prompts.size() * returns);
  for (const auto& prompt : prompts) {
    if (prompt.empty()) throw std::invalid_argument("a prompt is empty: it needs at least one token");
    for (const TokenId id : prompt) {
      if (id < 0 || id >= vocab_size) {
        throw std::invalid_argument("a prompt holds token id " + std::to_string(id) +
                                    ", but the vocabulary has ids 0 to " + std::to_string(vocab_size - 1));
      }
    }
    const std::size_t max_length = checked_max_length(options_, prompt.size());
    rows_.push_back({static_cast<std::int32_t>(rows_.size()), static_cast<std::int32_t>(outputs_.size())});
    for (std::size_t i = 0; i < returns; ++i) {
      outputs_.push_back(
          {TokenHistory(prompt, max_length - prompt.size()), max_length, FinishReason::none, {}});
      if (options_.return_scores) outputs_.back().scores.reserve(max_length - prompt.size());
    }
  }
  const std::size_t most_rows = outputs_.size();
  rows_.reserve(most_rows);
  row_sources_.reserve(most_rows);
  next_tokens_.reserve(most_rows);
  next_positions_.reserve(most_rows);
  candidates_.reserve(most_rows);
  candidate_scores_.reserve(most_rows);
  last_tokens_.reserve(most_rows);
  allowed_.resize(most_rows);
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    row_sources_.push_back(static_cast<std::int32_t>(row));
    next_tokens_.push_back(prompts[row].back());
    next_positions_.push_back(static_cast<std::int64_t>(prompts[row].size()) - 1);
  }
}

std::size_t DecodeState::outputs_per_row() const noexcept {
  return forked_ ? 1 : static_cast<std::size_t>(options_.num_return_sequences);
}

std::span<const TokenId> DecodeState::history_of(std::size_t row) const {
  return outputs_[static_cast<std::size_t>(rows_.at(row).output)].history.ids();
}

void DecodeState::set_allowed_tokens(std::size_t row, std::optional<std::vector<TokenId>> allowed) {
  if (row >= rows_.size()) throw std::out_of_range("set_allowed_tokens: no such row");
  if (allowed) {
    if (allowed->empty())
      throw std::invalid_argument("set_allowed_tokens: the list is empty, no token could be chosen");
    for (const TokenId id : *allowed) {
      if (id < 0 || static_cast<std::size_t>(id) >= vocab_size_) {
        throw std::invalid_argument("set_allowed_tokens: token id " + std::to_string(id) +
                                    " is not in the vocabulary of " + std::to_string(vocab_size_));
      }
    }
  }
  allowed_[row] = std::move(allowed);
}

void DecodeState::process(float* logits) {
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    const Output& output = outputs_[static_cast<std::size_t>(rows_[row].output)];
    pipeline_.apply(row_scores(logits, row), output.history, output.max_length, allowed_[row]);
  }
}

void DecodeState::propose(float* logits) {
  candidates_.clear();
  candidate_scores_.clear();
  const std::size_t draws = outputs_per_row();
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    const std::span<float> scores = row_scores(logits, row);
    if (!options_.do_sample) {
      if (options_.renormalize_logits) log_softmax(scores, row);
      const TokenId token = checked_argmax(scores, row);
      candidates_.push_back({static_cast<std::int32_t>(row), token});
      if (options_.return_scores) {
        const float maximum = scores[static_cast<std::size_t>(token)];
        candidate_scores_.push_back(-static_cast<float>(log_sum_exp(scores, maximum)));
      }
      continue;
    }
    sampler_.filter(scores, row);
    const auto prompt = static_cast<std::size_t>(rows_[row].prompt);
    const std::uint64_t seed = options_.seeds[options_.seeds.size() == 1 ? 0 : prompt];
    const auto first = static_cast<std::size_t>(rows_[row].output);
    for (std::size_t i = 0; i < draws; ++i) {
      const std::size_t stream = (first + i) % static_cast<std::size_t>(options_.num_return_sequences);
      const std::size_t step = outputs_[first].history.generated_length();
      const Sampler::Draw draw =
          sampler_.draw(uniform(seed, static_cast<std::uint32_t>(stream), static_cast<std::uint32_t>(step)));
      candidates_.push_back({static_cast<std::int32_t>(row), draw.token});
      if (options_.return_scores) candidate_scores_.push_back(draw.log_probability);
    }
  }
}

FinishReason DecodeState::reason_after(const Output& output, TokenId token, bool extra_hit) const {
  const auto& ends = options_.eos_token_id;
  if (std::find(ends.begin(), ends.end(), token) != ends.end()) return FinishReason::eos;
  if (extra_hit) return FinishReason::stop;
  if (output.history.length() >= output.max_length) return FinishReason::length;
  if (options_.max_time_s) {
    const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start_;
    if (spent.count() > *options_.max_time_s) return FinishReason::time;
  }
  if (cancelled_.load(std::memory_order_relaxed)) return FinishReason::cancelled;
  return FinishReason::none;
}

void DecodeState::commit(const std::uint8_t* extra_hits) {
  if (candidates_.size() != rows_.size() * outputs_per_row()) {
    throw std::invalid_argument("commit: nothing was proposed for this step");
  }
  last_tokens_.clear();
  row_sources_.clear();
  next_tokens_.clear();
  next_positions_.clear();
  if (!forked_) {  // from here on every output has a row of its own
    const std::size_t returns = outputs_per_row();
    rows_.resize(outputs_.size());
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      rows_[i] = {static_cast<std::int32_t>(i / returns), static_cast<std::int32_t>(i)};
    }
    forked_ = true;
  }
  // Candidate i now belongs to row i. Rows that stay move up over those that end.
  std::size_t live = 0;
  for (std::size_t i = 0; i < candidates_.size(); ++i) {
    const auto [source, token] = candidates_[i];
    const Row row = rows_[i];
    Output& output = outputs_[static_cast<std::size_t>(row.output)];
    output.history.append(token);
    if (options_.return_scores) output.scores.push_back(candidate_scores_[i]);
    output.reason = reason_after(output, token, extra_hits != nullptr && extra_hits[i] != 0);
    last_tokens_.push_back({row.output, token, output.reason});
    if (output.reason != FinishReason::none) continue;
    rows_[live++] = row;
    row_sources_.push_back(source);
    next_tokens_.push_back(token);
    next_positions_.push_back(static_cast<std::int64_t>(output.history.length()) - 1);
  }
  rows_.resize(live);
  candidates_.clear();
  for (auto& allowed : allowed_) allowed.reset();
}

}  // namespace sabiyarn
