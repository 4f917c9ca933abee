// Runs of decoding with any options over any logits. They end in a result whose tokens could be chosen, or in
// the errors that the core documents; never in anything else. Greedy choices are those of a plain loop.
#include <algorithm>
#include <cmath>
#include <set>
#include <stdexcept>
#include <utility>
#include <vector>

#include "bytes.hpp"
#include "core/decoding/decode_state.hpp"
#include "require.hpp"

using namespace sabiyarn;

namespace {

std::vector<TokenId> ids(Bytes& bytes, std::size_t vocab_size, std::size_t most) {
  std::vector<TokenId> result(bytes.below(most + 1));
  for (TokenId& id : result) id = bytes.id(vocab_size);
  return result;
}

DecodeOptions make_options(Bytes& bytes, std::size_t vocab_size) {
  DecodeOptions o;
  o.max_new_tokens =
      bytes.byte() == 255 ? (std::int64_t{1} << 40) : 1 + static_cast<std::int64_t>(bytes.below(8));
  o.do_sample = bytes.flag();
  if (bytes.flag()) o.num_beams = static_cast<std::int64_t>(bytes.below(9));
  if (bytes.flag()) o.num_return_sequences = static_cast<std::int64_t>(bytes.below(6));
  o.early_stopping = static_cast<EarlyStopping>(bytes.below(3));
  o.return_scores = bytes.flag();
  o.seeds = {bytes.byte()};
  o.eos_token_id = ids(bytes, vocab_size, 4);
  if (bytes.flag()) o.top_k = static_cast<std::int64_t>(bytes.byte());
  // Each byte decides on one more option; a zero leaves it out.
  if (bytes.flag()) o.temperature = bytes.option();
  if (bytes.flag()) o.top_p = bytes.option();
  if (bytes.flag()) o.min_p = bytes.option();
  if (bytes.flag()) o.typical_p = bytes.option();
  if (bytes.flag()) o.epsilon_cutoff = bytes.option();
  if (bytes.flag()) o.eta_cutoff = bytes.option();
  if (bytes.flag()) o.renormalize_logits = true;
  if (bytes.flag()) o.length_penalty = bytes.option() * (bytes.flag() ? 1.0 : -1.0);
  if (bytes.flag()) o.repetition_penalty = bytes.option();
  if (bytes.flag()) o.penalty_window = static_cast<std::int64_t>(bytes.below(5));
  if (bytes.flag()) o.frequency_penalty = bytes.option();
  if (bytes.flag()) o.presence_penalty = -bytes.option();
  if (bytes.flag()) o.no_repeat_ngram_size = static_cast<std::int64_t>(bytes.below(5));
  if (bytes.flag()) o.bad_words_ids = {ids(bytes, vocab_size, 3), {bytes.id(vocab_size)}};
  if (bytes.flag())
    o.sequence_bias = {{ids(bytes, vocab_size, 3), bytes.score()}, {{bytes.id(vocab_size)}, bytes.score()}};
  if (bytes.flag()) o.forced_bos_token_id = bytes.id(vocab_size);
  if (bytes.flag()) o.forced_eos_token_id = ids(bytes, vocab_size, 2);
  if (bytes.flag()) o.suppress_tokens = ids(bytes, vocab_size, 6);
  if (bytes.flag()) o.begin_suppress_tokens = ids(bytes, vocab_size, 6);
  if (bytes.flag()) o.min_new_tokens = static_cast<std::int64_t>(bytes.below(4));
  if (bytes.flag()) o.min_length = static_cast<std::int64_t>(bytes.below(9));
  return o;
}

// Short rows are chosen score by score. Long ones, which take other paths, repeat 16 scores in a mixed order.
void fill(std::vector<float>& logits, Bytes& bytes) {
  if (logits.size() <= 64) {
    for (float& score : logits) score = bytes.score();
    return;
  }
  float some[16];
  for (float& score : some) score = bytes.score();
  const std::size_t step = 1 + bytes.byte();
  for (std::size_t i = 0; i < logits.size(); ++i) logits[i] = some[(i * step / 7 + i % 5) % 16];
}

void check_choice(const DecodeState& state, const DecodeOptions& options, const std::vector<float>& scores,
                  bool first_step) {
  const auto vocab_size = static_cast<std::size_t>(state.vocab_size());
  std::set<std::pair<std::int32_t, TokenId>> seen;
  for (const auto& candidate : state.candidates()) {
    require(candidate.token >= 0 && candidate.token < state.vocab_size(), "the token is in the vocabulary");
    require(candidate.row >= 0 && candidate.row < state.num_rows(), "the row is one of the step's");
    const auto row =
        scores.begin() + static_cast<std::ptrdiff_t>(static_cast<std::size_t>(candidate.row) * vocab_size);
    if (options.num_beams > 1) {
      require(first_step || seen.emplace(candidate.row, candidate.token).second, "no candidate comes twice");
    } else if (options.do_sample) {
      require(row[candidate.token] > -std::numeric_limits<float>::infinity(),
              "what is drawn was not removed");
    } else {
      TokenId best = 0;
      for (TokenId id = 1; id < state.vocab_size(); ++id) best = row[id] > row[best] ? id : best;
      require(candidate.token == best, "greedy takes the first of the best");
    }
  }
}

void run(Bytes& bytes) {
  const std::size_t sizes[] = {1, 2, 3, 7, 16, 17, 40, 64, 255};
  const std::size_t vocab_size = sizes[bytes.below(sizeof sizes / sizeof sizes[0])];
  const DecodeOptions options = make_options(bytes, vocab_size);
  std::vector<std::vector<TokenId>> prompts(1 + bytes.below(3));
  for (auto& prompt : prompts) {
    prompt = ids(bytes, vocab_size, 5);
    prompt.push_back(bytes.id(vocab_size));
  }
  // Rows of a step's own logits; a larger vocabulary than ids are chosen from makes them long.
  const std::size_t long_vocab = bytes.below(4) == 3 ? 600 : vocab_size;
  DecodeState state(options, static_cast<std::int64_t>(long_vocab), prompts);
  for (int step = 0; step < 6 && !state.finished(); ++step) {
    std::vector<float> logits(static_cast<std::size_t>(state.num_rows()) * long_vocab);
    fill(logits, bytes);
    state.process(logits.data());
    const std::vector<float> scores = logits;
    state.propose(logits.data());
    check_choice(state, options, options.renormalize_logits ? logits : scores, step == 0);
    if (bytes.byte() == 77) state.cancel();
    state.commit();
  }
  for (std::size_t output = 0; output < state.num_outputs(); ++output) {
    for (const TokenId id : state.sequence(output)) {
      require(id >= 0 && id < state.vocab_size(), "what came out is in the vocabulary");
    }
    require(!state.finished() || options.num_beams > 1 || state.finish_reason(output) != FinishReason::none,
            "a row that ended says why");
    static_cast<void>(state.certain_tokens(output));
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Bytes bytes(data, size);
  try {
    run(bytes);
  } catch (const std::invalid_argument&) {  // the documented refusals
  }
  return 0;
}
