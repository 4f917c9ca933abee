#include "core/selection/sampling_filters.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "core/selection/softmax.hpp"
#include "core/simd/exact_math.hpp"

namespace sabiyarn {
namespace {

// keep_head sorts candidates into buckets by key, 32 for each unit. Keys are natural logarithms, so 64 units cover
// every candidate with a probability above 0.
constexpr std::size_t kBuckets = 2048;
constexpr float kBucketsPerUnit = 32.0f;
constexpr std::size_t kWorthBuckets = 256;  // fewer candidates are simply sorted

// Writes exp(score - maximum) of the candidates to scratch.weights and returns their sum.
double softmax_weights(const Candidates& row, FilterScratch& scratch) {
  scratch.weights.resize(row.size());
  return exp_weights(row.scores(), row.maximum(), scratch.weights.data());
}

// Returns the keep-th best candidate.
ScoredIndex least_kept(const Candidates& row, std::size_t keep, FilterScratch& scratch) {
  scratch.top.begin(std::min(keep, row.size()));
  scratch.top.offer(row.scores(), 0.0f, 0);
  return scratch.top.finish().back();
}

// Keeps the head of the candidates in ascending order of scratch.keys. A candidate belongs to the head if the
// scratch.weights before it sum to less than `limit`, or if it is among the first `keep`. With `ties_stay`, candidates
// equal to the last of the head stay too. Only the bucket where the head ends is sorted.
void keep_head(Candidates& row, double limit, std::size_t keep, bool ties_stay, FilterScratch& scratch) {
  const std::vector<float>& keys = scratch.keys;
  const std::vector<float>& weights = scratch.weights;
  const std::size_t count = row.size();
  float least = keys[0];
  for (const float key : keys) least = key < least ? key : least;
  const bool few = count < kWorthBuckets;
  const auto bucket_of = [&](std::size_t i) -> std::size_t {
    if (few) return 0;
    const float place = (keys[i] - least) * kBucketsPerUnit;
    return place < static_cast<float>(kBuckets - 1) ? static_cast<std::size_t>(place) : kBuckets - 1;
  };

  std::size_t last_bucket = 0, rank = 0;
  double mass = 0.0;
  if (!few) {
    scratch.bucket_mass.assign(kBuckets, 0.0);
    scratch.bucket_count.assign(kBuckets, 0);
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t bucket = bucket_of(i);
      scratch.bucket_mass[bucket] += static_cast<double>(weights[i]);
      ++scratch.bucket_count[bucket];
    }
    // A bucket that does not complete the head is kept entirely.
    while (last_bucket + 1 < kBuckets && (mass + scratch.bucket_mass[last_bucket] < limit ||
                                          rank + scratch.bucket_count[last_bucket] < keep)) {
      mass += scratch.bucket_mass[last_bucket];
      rank += scratch.bucket_count[last_bucket];
      ++last_bucket;
    }
  }

  std::vector<std::uint32_t>& order = scratch.order;
  order.clear();
  scratch.kept.resize(count);
  for (std::size_t i = 0; i < count; ++i) {
    const std::size_t bucket = bucket_of(i);
    scratch.kept[i] = bucket < last_bucket ? 1 : 0;
    if (bucket == last_bucket) order.push_back(static_cast<std::uint32_t>(i));
  }
  std::sort(order.begin(), order.end(),
            [&](std::uint32_t a, std::uint32_t b) { return keys[a] != keys[b] ? keys[a] < keys[b] : a < b; });
  float tie = -std::numeric_limits<float>::infinity();  // the key of the last one that the limit let in
  for (const std::uint32_t i : order) {
    if (mass < limit) {
      tie = keys[i];
    } else if (rank >= keep && !(ties_stay && keys[i] == tie)) {
      break;
    }
    scratch.kept[i] = 1;
    mass += static_cast<double>(weights[i]);
    ++rank;
  }
  row.keep_if([&](std::size_t i) { return scratch.kept[i] != 0; });
}

// H = -sum p log p, in natural units, with p = weight / total and log p = score - maximum - log(total).
double entropy(const Candidates& row, double total, const std::vector<float>& weights) {
  const float maximum = row.maximum();
  double sum = 0.0;
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (weights[i] == 0.0f) continue;
    sum += static_cast<double>(weights[i]) * static_cast<double>(row.scores()[i] - maximum);
  }
  return log_double(total) - sum / total;
}

// Removes candidates whose weight is below `threshold`, except the `keep` best and ties with the last of them.
void remove_below(Candidates& row, double threshold, std::size_t keep, FilterScratch& scratch) {
  const float least = least_kept(row, keep, scratch).score;
  row.keep_if([&](std::size_t i) {
    return static_cast<double>(scratch.weights[i]) >= threshold || row.scores()[i] >= least;
  });
}

}  // namespace

void FilterScratch::reserve(std::size_t vocab_size) {
  weights.reserve(vocab_size);
  keys.reserve(vocab_size);
  order.reserve(vocab_size);
  kept.reserve(vocab_size);
  bucket_mass.reserve(kBuckets);
  bucket_count.reserve(kBuckets);
}

void filter_top_p(Candidates& row, double p, std::size_t keep, FilterScratch& scratch) {
  const double total = softmax_weights(row, scratch);
  scratch.keys.resize(row.size());
  for (std::size_t i = 0; i < row.size(); ++i) scratch.keys[i] = -row.scores()[i];
  keep_head(row, p * total, keep, false, scratch);
}

void filter_min_p(Candidates& row, double min_p, std::size_t keep, FilterScratch& scratch) {
  softmax_weights(row, scratch);  // the best has weight 1
  const ScoredIndex least = least_kept(row, keep, scratch);
  row.keep_if([&](std::size_t i) {
    const ScoredIndex candidate{row.scores()[i], static_cast<std::int32_t>(i)};
    return static_cast<double>(scratch.weights[i]) >= min_p || !comes_before(least, candidate);
  });
}

void filter_typical_p(Candidates& row, double mass, std::size_t keep, FilterScratch& scratch) {
  const double total = softmax_weights(row, scratch);
  const float maximum = row.maximum();
  const float log_total = static_cast<float>(log_double(total));
  const float h = static_cast<float>(entropy(row, total, scratch.weights));
  scratch.keys.resize(row.size());
  for (std::size_t i = 0; i < row.size(); ++i) {
    scratch.keys[i] = std::fabs(-((row.scores()[i] - maximum) - log_total) - h);
  }
  keep_head(row, mass * total, keep, true, scratch);
}

void filter_epsilon(Candidates& row, double epsilon, std::size_t keep, FilterScratch& scratch) {
  const double total = softmax_weights(row, scratch);
  remove_below(row, epsilon * total, keep, scratch);
}

void filter_eta(Candidates& row, double epsilon, std::size_t keep, FilterScratch& scratch) {
  const double total = softmax_weights(row, scratch);
  const double h = entropy(row, total, scratch.weights);
  remove_below(row, std::min(epsilon, std::sqrt(epsilon) * exp_double(-h)) * total, keep, scratch);
}

void renormalize(Candidates& row) {
  const float maximum = row.maximum();
  const float log_total = static_cast<float>(log_double(sum_of_exp(row.scores(), maximum)));
  for (float& score : row.scores()) score = (score - maximum) - log_total;
}

}  // namespace sabiyarn
