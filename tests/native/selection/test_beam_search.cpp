// A search small enough to follow by hand: two beams, end token 0, length_penalty 1.
#include <algorithm>
#include <array>

#include "check.hpp"
#include "core/selection/beam_search.hpp"

using namespace sabiyarn;

namespace {

using Ids = std::vector<TokenId>;

bool holds(const Hypothesis& hypothesis, const Ids& ids) {
  return std::ranges::equal(hypothesis.history.ids(), ids);
}

}  // namespace

int main() {
  DecodeOptions options;
  options.num_beams = 2;
  options.eos_token_id = {0};
  options.max_new_tokens = 4;
  const Ids prompt{9};
  BeamSearch search(options, prompt, 5);
  CHECK(search.num_candidates() == 4);
  CHECK(search.running_scores()[0] == 0.0f && search.running_scores()[1] == -1.0e9f);

  constexpr auto none = FinishReason::none;
  // Token 0 ends the best candidate: it is pooled, the next two run on.
  const std::array<BeamCandidate, 4> first{{{-1, 0, 0, -1}, {-2, 0, 3, -2}, {-3, 0, 4, -3}, {-4, 0, 5, -4}}};
  search.commit(first, std::array{FinishReason::eos, none, none, none});
  CHECK(!search.closed());
  CHECK(search.has_finished() && search.finished(0).score == -1.0f &&
        holds(search.finished(0).hypothesis, {9, 0}));
  CHECK(search.finished(1).reason == none);
  CHECK(holds(search.running(0), {9, 3}) && holds(search.running(1), {9, 4}));
  CHECK(search.certain_length(0) == 0);

  // Both beams come from the second. An end at the third place is not among the best two, so it is not
  // pooled.
  const std::array<BeamCandidate, 4> second{
      {{-3.5f, 1, 6, -0.5f}, {-4, 1, 7, -1}, {-5, 0, 0, -3}, {-6, 0, 8, -4}}};
  search.commit(second, std::array{none, none, FinishReason::eos, none});
  CHECK(search.sources()[0] == 1 && search.sources()[1] == 1);
  CHECK(holds(search.running(0), {9, 4, 6}) && holds(search.running(1), {9, 4, 7}));
  CHECK(search.finished(1).reason == none);
  CHECK(search.certain_length(0) == 0);  // the pooled [9, 0] may still be the best

  // Two ends fill the pool: -4.5 / 3 and -4.2 / 3 against the -1 from before. The best running beam cannot
  // get there.
  const std::array<BeamCandidate, 4> third{
      {{-4.2f, 1, 0, -0.2f}, {-4.5f, 0, 0, -1}, {-9, 0, 5, -5}, {-9, 1, 5, -5}}};
  search.commit(third, std::array{FinishReason::eos, FinishReason::eos, none, none});
  CHECK(holds(search.finished(0).hypothesis, {9, 0}) && holds(search.finished(1).hypothesis, {9, 4, 7, 0}));
  CHECK(search.finished(1).score == -4.2f / 3.0f);
  CHECK(search.closed());
  return outcome();
}
