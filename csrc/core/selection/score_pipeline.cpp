#include "core/selection/score_pipeline.hpp"

#include <algorithm>

namespace sabiyarn {

ScorePipeline::ScorePipeline(const DecodeOptions& options) : options_(options) {
  const auto& ends = options.eos_token_id;
  for (const auto& word : options.bad_words_ids) {
    const bool is_end = word.size() == 1 && std::find(ends.begin(), ends.end(), word[0]) != ends.end();
    if (!is_end) bad_words_.push_back(word);
  }
}

void ScorePipeline::apply(Scores scores, const TokenHistory& history, std::size_t max_length,
                          const std::optional<std::vector<TokenId>>& allowed) {
  const DecodeOptions& o = options_;
  const Ids ids = history.ids();
  const auto length = static_cast<std::int64_t>(history.length());
  const auto generated = static_cast<std::int64_t>(history.generated_length());

  if (!o.sequence_bias.empty()) {
    biases_.resize(scores.size());
    apply_sequence_bias(scores, ids, o.sequence_bias, biases_);
  }
  if (o.repetition_penalty != 1.0) {
    apply_repetition_penalty(scores, ids, static_cast<float>(o.repetition_penalty),
                             static_cast<std::size_t>(o.penalty_window), counts(scores.size()));
  }
  if (o.frequency_penalty != 0.0 || o.presence_penalty != 0.0) {
    apply_openai_penalties(scores, history.generated(), static_cast<float>(o.frequency_penalty),
                           static_cast<float>(o.presence_penalty), counts(scores.size()));
  }
  if (o.no_repeat_ngram_size > 0) {
    ban_repeated_ngrams(scores, ids, static_cast<std::size_t>(o.no_repeat_ngram_size));
  }
  ban_bad_words(scores, ids, bad_words_);
  const bool too_short = o.min_new_tokens > 0 ? generated < o.min_new_tokens : length < o.min_length;
  if (too_short) ban(scores, o.eos_token_id);
  if (allowed) keep_only(scores, *allowed, counts(scores.size()));
  if (o.forced_bos_token_id && length == 1) force(scores, Ids(&*o.forced_bos_token_id, 1));
  if (!o.forced_eos_token_id.empty() && history.length() + 1 == max_length)
    force(scores, o.forced_eos_token_id);
  ban(scores, o.suppress_tokens);
  // A forced first token is not the beginning that begin_suppress_tokens means.
  const std::int64_t begin = o.forced_bos_token_id && history.prompt_length() == 1 ? 1 : 0;
  if (generated == begin) ban(scores, o.begin_suppress_tokens);
}

}  // namespace sabiyarn
