// tests/campaigns/arm/instructions/kernels.cpp - calls one loop of the core, or its scalar twin, CALLS times.
//
//   kernels list                          prints the names of the loops
//   kernels check                         runs each loop and its twin; fails if a bit of the results differs
//   kernels LOOP vector|scalar CALLS      for the instruction counter
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "core/selection/candidates.hpp"
#include "core/selection/row_math.hpp"
#include "core/selection/softmax.hpp"
#include "core/selection/top_k.hpp"
#include "core/simd/half.hpp"
#include "scalar_twins.hpp"

namespace {

constexpr std::size_t kScores = 52050;  // SabiYarn's vocabulary
constexpr std::size_t kTop = 50;

// Deterministic scores, distributed about like logits: sums of four uniform numbers in [-8, 8].
std::vector<float> make_scores() {
  std::vector<float> scores(kScores);
  std::uint64_t state = 12345;
  for (float& score : scores) {
    double sum = 0.0;
    for (int i = 0; i < 4; ++i) {
      state = state * 6364136223846793005ULL + 1442695040888963407ULL;
      sum += static_cast<double>(state >> 33) / 2147483648.0 - 0.5;
    }
    score = static_cast<float>(4.0 * sum);
  }
  return scores;
}

const std::vector<float> scores = make_scores();
float maximum = 0.0f;

using Bytes = std::vector<unsigned char>;

template <typename Value>
void append(Bytes& bytes, const Value* values, std::size_t count) {
  const auto* first = reinterpret_cast<const unsigned char*>(values);
  bytes.insert(bytes.end(), first, first + count * sizeof(Value));
}

std::vector<sabiyarn::half_bits> halves(kScores);
std::vector<float> floats(kScores);
std::vector<std::int32_t> ids(kScores);
std::vector<sabiyarn::ScoredIndex> twin_buffer;
sabiyarn::TopK selection;
sabiyarn::Candidates candidates;
float kth = 0.0f;

struct Loop {
  const char* name;
  std::function<void()> vector, scalar;
  std::function<void(Bytes&)> vector_result, scalar_result;  // of the last call
};

std::span<const sabiyarn::ScoredIndex> best;
std::int32_t chosen = 0;
double total = 0.0;
std::size_t collected = 0;

const auto floats_result = [](Bytes& bytes) {
  append(bytes, floats.data(), kScores);
  append(bytes, &total, 1);
};
const auto best_result = [](Bytes& bytes) { append(bytes, best.data(), best.size()); };

const std::vector<Loop> loops = {
    {"float to half", [] { sabiyarn::float_to_half(scores.data(), halves.data(), kScores); },
     [] { twins::float_to_half(scores.data(), halves.data(), kScores); },
     [](Bytes& bytes) { append(bytes, halves.data(), kScores); },
     [](Bytes& bytes) { append(bytes, halves.data(), kScores); }},
    {"half to float", [] { sabiyarn::half_to_float(halves.data(), floats.data(), kScores); },
     [] { twins::half_to_float(halves.data(), floats.data(), kScores); }, floats_result, floats_result},
    {"argmax", [] { chosen = sabiyarn::checked_argmax(scores, 0); }, [] { chosen = twins::argmax(scores); },
     [](Bytes& bytes) { append(bytes, &chosen, 1); }, [](Bytes& bytes) { append(bytes, &chosen, 1); }},
    {"softmax weights", [] { total = sabiyarn::exp_weights(scores, maximum, floats.data()); },
     [] { total = twins::exp_weights(scores, maximum, floats.data()); }, floats_result, floats_result},
    {"top-k 50",
     [] {
       selection.begin(kTop);
       selection.offer(scores, 0.0f, 0);
       best = selection.finish();
     },
     [] { best = twins::top_k(scores, kTop, twin_buffer); }, best_result, best_result},
    {"top-k 50 and the tokens that stay", [] { candidates.gather_top_k(scores, 1.0f, kTop, selection); },
     [] {
       kth = twins::top_k(scores, kTop, twin_buffer).back().score;
       collected = twins::collect(scores, kth, ids.data(), floats.data());
     },
     [](Bytes& bytes) {
       append(bytes, candidates.ids().data(), candidates.size());
       append(bytes, candidates.scores().data(), candidates.size());
     },
     [](Bytes& bytes) {
       append(bytes, ids.data(), collected);
       append(bytes, floats.data(), collected);
     }},
};

int check() {
  int differing = 0;
  for (const Loop& loop : loops) {
    Bytes vector, scalar;
    loop.vector();
    loop.vector_result(vector);
    chosen = -1;
    total = -1.0;
    if (loop.name != std::string("half to float")) std::fill(halves.begin(), halves.end(), 0);
    std::fill(floats.begin(), floats.end(), 0.0f);
    loop.scalar();
    loop.scalar_result(scalar);
    if (vector.empty() || vector != scalar) {
      std::printf("%s: the results differ\n", loop.name);
      ++differing;
    }
  }
  return differing == 0 ? 0 : 1;
}

}  // namespace

int main(int count, char** arguments) {
  maximum = sabiyarn::checked_maximum(scores, 0);
  sabiyarn::float_to_half(scores.data(), halves.data(), kScores);
  const std::string command = count > 1 ? arguments[1] : "";
  if (command == "check") return check();
  for (const Loop& loop : loops) {
    if (command == "list") std::printf("%s\n", loop.name);
    if (command != loop.name || count != 4) continue;
    const auto& call = std::string(arguments[2]) == "vector" ? loop.vector : loop.scalar;
    for (int left = std::atoi(arguments[3]); left > 0; --left) call();
    return 0;
  }
  return command == "list" ? 0 : 2;
}
