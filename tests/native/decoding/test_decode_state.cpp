// Rows, sources and errors as the onnxruntime loop sees them.
#include <algorithm>
#include <limits>
#include <stdexcept>

#include "check.hpp"
#include "core/decoding/decode_state.hpp"

using namespace sabiyarn;

namespace {

constexpr std::size_t kVocab = 6;

// One row of zeros for each row of the state, with a 1 at the given token.
std::vector<float> logits_for(const DecodeState& state, const std::vector<TokenId>& best) {
  std::vector<float> logits(static_cast<std::size_t>(state.num_rows()) * kVocab, 0.0f);
  for (std::size_t row = 0; row < best.size(); ++row)
    logits[row * kVocab + static_cast<std::size_t>(best[row])] = 1.0f;
  return logits;
}

void rows_disappear_when_they_end() {
  DecodeOptions options;
  options.max_new_tokens = 3;
  options.eos_token_id = {5};
  DecodeState state(options, kVocab, {{1}, {2, 3}, {4}});
  state.advance(logits_for(state, {1, 5, 2}).data());
  CHECK(state.num_rows() == 2);
  CHECK(state.row_sources()[0] == 0 && state.row_sources()[1] == 2);
  CHECK(state.next_tokens()[1] == 2 && state.next_positions()[1] == 1);
  CHECK(state.finish_reason(1) == FinishReason::eos);
  state.advance(logits_for(state, {5, 1}).data());
  CHECK(state.num_rows() == 1 && state.row_sources()[0] == 1);
  state.advance(logits_for(state, {1}).data());
  CHECK(state.finished() && state.finish_reason(2) == FinishReason::length);
  CHECK_THROWS(state.commit(), std::invalid_argument);
}

void beams_fork_from_one_row() {
  DecodeOptions options;
  options.max_new_tokens = 2;
  options.num_beams = 3;
  DecodeState state(options, kVocab, {{1}, {2}});
  CHECK(state.num_rows() == 2);
  state.advance(logits_for(state, {4, 5}).data());
  CHECK(state.num_rows() == 6);
  for (int row = 0; row < 6; ++row) CHECK(state.row_sources()[row] == row / 3);
  CHECK(state.next_tokens()[0] == 4 && state.next_tokens()[3] == 5);
  state.advance(logits_for(state, {0, 0, 0, 0, 0, 0}).data());
  CHECK(state.finished());
  CHECK(std::ranges::equal(state.sequence(0), std::vector<TokenId>{1, 4, 0}));
  CHECK(state.sequence_score(0) < 0.0f);
}

void a_step_that_throws_can_be_repeated() {
  for (const std::int64_t beams : {1, 2}) {
    DecodeOptions options;
    options.max_new_tokens = 2;
    options.num_beams = beams;
    DecodeState state(options, kVocab, {{1}, {2}});
    std::vector<float> logits = logits_for(state, {3, 3});
    logits[kVocab + 2] = std::numeric_limits<float>::quiet_NaN();
    CHECK_THROWS(state.advance(logits.data()), std::invalid_argument);
    CHECK_THROWS(state.commit(), std::invalid_argument);
    state.advance(logits_for(state, {3, 3}).data());
    CHECK(state.next_tokens()[0] == 3);
  }
}

}  // namespace

int main() {
  rows_disappear_when_they_end();
  beams_fork_from_one_row();
  a_step_that_throws_can_be_repeated();
  CHECK_THROWS(DecodeState({}, kVocab, {{1}}), std::invalid_argument);
  return outcome();
}
