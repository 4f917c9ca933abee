#include "core/decoding/decode_options.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <stdexcept>

namespace sabiyarn {
namespace {

template <typename... Parts>
[[noreturn]] void refuse(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

void check_ids(const char* name, const std::vector<TokenId>& ids, std::int64_t vocab_size) {
  for (const TokenId id : ids) {
    if (id < 0 || id >= vocab_size) {
      refuse(name, " holds ", id, ", but the vocabulary has ids 0 to ", vocab_size - 1);
    }
  }
}

void check_fraction(const char* name, double value, bool zero_allowed) {
  if (!(value <= 1.0 && (value > 0.0 || (zero_allowed && value == 0.0)))) {
    refuse(name, " is ", value, "; it must be in ", zero_allowed ? "[" : "(", "0, 1]");
  }
}

void check_at_least(const char* name, std::int64_t value, std::int64_t least) {
  if (value < least) refuse(name, " is ", value, "; it must be at least ", least);
}

void check_positive(const char* name, double value, const char* advice = "") {
  if (!(value > 0.0) || !std::isfinite(value)) {
    refuse(name, " is ", value, "; it must be a finite number above 0", advice);
  }
}

void check_finite(const char* name, double value) {
  if (!std::isfinite(value)) refuse(name, " is ", value, "; it must be a finite number");
}

}  // namespace

void validate(const DecodeOptions& o, std::int64_t vocab_size) {
  check_at_least("vocab_size", vocab_size, 1);
  if (!o.max_new_tokens && !o.max_length) refuse("neither max_new_tokens nor max_length is set");
  if (o.max_new_tokens) check_at_least("max_new_tokens", *o.max_new_tokens, 1);
  check_at_least("min_length", o.min_length, 0);
  check_at_least("min_new_tokens", o.min_new_tokens, 0);
  if (o.max_new_tokens && o.min_new_tokens > *o.max_new_tokens) {
    refuse("min_new_tokens is ", o.min_new_tokens, ", but max_new_tokens is ", *o.max_new_tokens);
  }

  if (o.num_beams < 1 || o.num_beams > 64) refuse("num_beams is ", o.num_beams, "; it must be 1 to 64");
  check_at_least("num_return_sequences", o.num_return_sequences, 1);
  if (o.num_beams > 1 && o.num_return_sequences > o.num_beams) {
    refuse("num_return_sequences is ", o.num_return_sequences, ", but num_beams is ", o.num_beams,
           ": beam search returns at most one sequence for each beam");
  }
  if (o.num_beams == 1 && !o.do_sample && o.num_return_sequences > 1) {
    refuse("num_return_sequences is ", o.num_return_sequences,
           ", but greedy decoding has one result: set do_sample or num_beams");
  }
  if (vocab_size > std::numeric_limits<std::int32_t>::max() / o.num_beams) {
    refuse("num_beams * vocab_size is ", o.num_beams, " * ", vocab_size,
           ": more candidates than 31 bits can number");
  }
  // A step has 2 * num_beams candidates, more with several end tokens, out of num_beams * vocab_size.
  const auto from_each = std::max<std::int64_t>(2, 1 + static_cast<std::int64_t>(o.eos_token_id.size()));
  if (o.num_beams > 1 && vocab_size < from_each) {
    refuse("vocab_size is ", vocab_size, ", but beam search with ", o.eos_token_id.size(),
           " end tokens needs at least ", from_each, " ids to search");
  }
  check_finite("length_penalty", o.length_penalty);

  check_positive("repetition_penalty", o.repetition_penalty);
  check_at_least("penalty_window", o.penalty_window, 0);
  check_finite("frequency_penalty", o.frequency_penalty);
  check_finite("presence_penalty", o.presence_penalty);
  check_at_least("no_repeat_ngram_size", o.no_repeat_ngram_size, 0);
  for (const auto& entry : o.sequence_bias) {
    if (entry.ids.empty()) refuse("sequence_bias holds an empty sequence");
    check_ids("sequence_bias", entry.ids, vocab_size);
    if (std::isnan(entry.bias)) refuse("sequence_bias holds a bias that is not a number");
  }
  for (const auto& word : o.bad_words_ids) {
    if (word.empty()) refuse("bad_words_ids holds an empty word");
    check_ids("bad_words_ids", word, vocab_size);
  }
  if (o.forced_bos_token_id) check_ids("forced_bos_token_id", {*o.forced_bos_token_id}, vocab_size);
  check_ids("forced_eos_token_id", o.forced_eos_token_id, vocab_size);
  check_ids("suppress_tokens", o.suppress_tokens, vocab_size);
  check_ids("begin_suppress_tokens", o.begin_suppress_tokens, vocab_size);

  check_positive("temperature", o.temperature,
                 o.temperature == 0.0 ? " (for greedy decoding unset do_sample)" : "");
  check_at_least("top_k", o.top_k, 0);
  check_fraction("top_p", o.top_p, false);
  if (o.min_p) check_fraction("min_p", *o.min_p, true);
  check_fraction("typical_p", o.typical_p, false);
  check_fraction("epsilon_cutoff", o.epsilon_cutoff, true);
  check_fraction("eta_cutoff", o.eta_cutoff, true);

  check_ids("eos_token_id", o.eos_token_id, vocab_size);
  for (const auto& text : o.stop_strings) {
    if (text.empty()) refuse("stop_strings holds an empty string");
  }
  if (!o.stop_strings.empty() && !o.token_bytes) {
    refuse("stop_strings needs token_bytes: the bytes of each token id");
  }
  if (o.max_time_s && !(*o.max_time_s > 0.0)) refuse("max_time_s is ", *o.max_time_s, "; it must be above 0");
}

}  // namespace sabiyarn
