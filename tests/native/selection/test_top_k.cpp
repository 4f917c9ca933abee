// Against a full sort, offered in pieces whose ends are not multiples of the vector width.
#include <algorithm>
#include <cstdint>
#include <limits>

#include "check.hpp"
#include "core/selection/random.hpp"
#include "core/selection/top_k.hpp"

using namespace sabiyarn;

namespace {

std::vector<float> random_scores(std::size_t count, std::uint32_t stream, bool with_ties) {
  std::vector<float> scores(count);
  for (std::size_t i = 0; i < count; ++i) {
    const double u = uniform(1, stream, static_cast<std::uint32_t>(i));
    scores[i] = with_ties ? static_cast<float>(static_cast<int>(u * 7.0)) : static_cast<float>(u);
    if (u > 0.97) scores[i] = -std::numeric_limits<float>::infinity();
  }
  return scores;
}

}  // namespace

int main() {
  TopK selection;  // reused, as a decode loop does
  std::uint32_t stream = 0;
  for (const std::size_t count : {1u, 5u, 100u, 3001u}) {
    for (const std::size_t k : {1u, 3u, 64u, 500u}) {
      for (const bool with_ties : {false, true}) {
        const std::vector<float> scores = random_scores(count, ++stream, with_ties);
        std::vector<ScoredIndex> expected;
        for (std::size_t i = 0; i < count; ++i) {
          if (scores[i] > -1.0f) expected.push_back({scores[i] + 0.5f, static_cast<std::int32_t>(i)});
        }
        std::sort(expected.begin(), expected.end(), comes_before);
        expected.resize(std::min(k, expected.size()));

        selection.begin(k);
        for (std::size_t at = 0; at < count; at += 333) {
          const std::size_t piece = std::min<std::size_t>(333, count - at);
          selection.offer(std::span(scores).subspan(at, piece), 0.5f, static_cast<std::int32_t>(at));
        }
        CHECK(
            std::ranges::equal(selection.finish(), expected, [](const ScoredIndex& a, const ScoredIndex& b) {
              return a.score == b.score && a.index == b.index;
            }));
      }
    }
  }
  return outcome();
}
