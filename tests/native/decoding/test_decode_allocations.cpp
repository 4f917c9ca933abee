// After a few steps a decode step takes no memory from the heap, whatever the options. operator new is
// counted.
#include <cstdint>
#include <string_view>
#include <vector>

#include "check.hpp"
#include "core/decoding/decode_state.hpp"
#include "core/selection/random.hpp"
#include "count_allocations.hpp"

using namespace sabiyarn;

namespace {

constexpr std::size_t kVocab = 4999;
constexpr int kWarmUp = 4, kSteps = 60;

std::size_t allocations_of(const DecodeOptions& options) {
  DecodeState state(options, kVocab, {{1, 2, 3}, {4, 5}});
  std::size_t after_warm_up = 0;
  for (int step = 0; step < kSteps && !state.finished(); ++step) {
    // Exactly as large as the step needs: the sanitizers see a read beyond the last row.
    std::vector<float> logits(static_cast<std::size_t>(state.num_rows()) * kVocab);
    for (std::size_t i = 0; i < logits.size(); ++i) {
      const double u = uniform(3, static_cast<std::uint32_t>(step), static_cast<std::uint32_t>(i));
      logits[i] = static_cast<float>(u) * 9.0f;
    }
    const std::size_t before = allocations;
    state.advance(logits.data());
    if (step >= kWarmUp) after_warm_up += allocations - before;
  }
  CHECK(!state.finished());  // else nothing was measured
  return after_warm_up;
}

}  // namespace

int main() {
  {
    const std::vector<int> seen(3);
  }
  CHECK(allocations > 0);  // the counting operator new is the one in use
  std::vector<std::string_view> pieces(kVocab, "ab");
  DecodeOptions base;
  base.max_new_tokens = 100;
  base.repetition_penalty = 1.2;
  base.no_repeat_ngram_size = 3;
  base.bad_words_ids = {{7}, {8, 9}};
  base.sequence_bias = {{{1}, 0.5f}, {{2, 3}, -0.5f}};
  base.frequency_penalty = 0.1;
  base.stop_strings = {"xyz"};
  base.token_bytes = std::make_shared<const TokenBytes>(pieces);
  base.return_scores = true;
  base.max_time_s = 1e6;
  CHECK(allocations_of(base) == 0);

  DecodeOptions sample = base;
  sample.do_sample = true;
  sample.num_return_sequences = 3;
  sample.temperature = 0.8;
  sample.top_p = 0.9;
  CHECK(allocations_of(sample) == 0);
  sample.top_k = 0;
  CHECK(allocations_of(sample) == 0);
  sample.min_p = 0.001;
  sample.typical_p = 0.9;
  sample.epsilon_cutoff = 1e-5;
  sample.eta_cutoff = 1e-5;
  sample.renormalize_logits = true;
  CHECK(allocations_of(sample) == 0);

  DecodeOptions beams = base;
  beams.num_beams = 5;
  beams.num_return_sequences = 2;
  beams.length_penalty = 1.2;
  CHECK(allocations_of(beams) == 0);
  beams.do_sample = true;
  beams.top_p = 0.95;
  CHECK(allocations_of(beams) == 0);
  return outcome();
}
