#include "core/survivors.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "core/exact_math.hpp"
#include "core/lanes.hpp"

namespace sabiyarn {
namespace {

constexpr float kRemoved = -std::numeric_limits<float>::infinity();

// Appends the tokens with score >= cut and score > -inf.
void collect(std::span<const float> scores, float cut, Survivors& result) {
  result.ids.clear();
  result.scores.clear();
  constexpr std::size_t kBlock = 4 * kLanes;
  const auto take = [&](std::size_t i) {
    if (scores[i] >= cut && scores[i] > kRemoved) {
      result.ids.push_back(static_cast<TokenId>(i));
      result.scores.push_back(scores[i]);
    }
  };
  std::size_t i = 0;
  for (; i + kBlock <= scores.size(); i += kBlock) {
    const float* block = scores.data() + i;
    if (!any((load(block) >= cut) | (load(block + kLanes) >= cut) | (load(block + 2 * kLanes) >= cut) |
             (load(block + 3 * kLanes) >= cut))) {
      continue;
    }
    for (std::size_t lane = 0; lane < kBlock; ++lane) take(i + lane);
  }
  for (; i < scores.size(); ++i) take(i);
}

template <typename Predicate>
void keep_if(Survivors& row, Predicate kept) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (!kept(i)) continue;
    row.ids[count] = row.ids[i];
    row.scores[count] = row.scores[i];
    ++count;
  }
  row.ids.resize(count);
  row.scores.resize(count);
}

// The keep-th largest score: what must stay whatever its probability.
float least_kept_score(const Survivors& row, std::size_t keep, FilterScratch& scratch) {
  scratch.top.begin(std::min(keep, row.size()));
  scratch.top.offer(row.scores, 0.0f, 0);
  return scratch.top.finish().back().score;
}

// Flags (scratch.kept) the head of the survivors in ascending order of scratch.keys: those before which less
// than `limit` of scratch.weights lies, with `ties_stay` also those equal to the last of these, and the first
// `keep`.
//
// Survivors are put into buckets by key, and only the bucket where the head ends is sorted.
void flag_head(double limit, std::size_t keep, bool ties_stay, FilterScratch& scratch) {
  constexpr std::size_t kBuckets = 2048;
  constexpr float kBucketsPerUnit = 32.0f;  // keys are natural logarithms: 64 units hold all that matters
  const auto& keys = scratch.keys;
  const auto& weights = scratch.weights;
  const std::size_t count = keys.size();
  const float least = *std::min_element(keys.begin(), keys.end());
  const bool small = count <= 256;
  const auto bucket_of = [&](std::size_t i) -> std::size_t {
    if (small) return 0;
    const float place = (keys[i] - least) * kBucketsPerUnit;
    return place < static_cast<float>(kBuckets - 1) ? static_cast<std::size_t>(place) : kBuckets - 1;
  };

  std::size_t last_bucket = 0;
  double mass = 0.0;
  std::size_t rank = 0;
  if (!small) {
    scratch.bucket_mass.assign(kBuckets, 0.0);
    scratch.bucket_count.assign(kBuckets, 0);
    for (std::size_t i = 0; i < count; ++i) {
      const std::size_t bucket = bucket_of(i);
      scratch.bucket_mass[bucket] += static_cast<double>(weights[i]);
      ++scratch.bucket_count[bucket];
    }
    // A bucket after which the head is not yet complete is kept whole.
    while (last_bucket + 1 < kBuckets && (mass + scratch.bucket_mass[last_bucket] < limit ||
                                          rank + scratch.bucket_count[last_bucket] < keep)) {
      mass += scratch.bucket_mass[last_bucket];
      rank += scratch.bucket_count[last_bucket];
      ++last_bucket;
    }
  }

  auto& order = scratch.order;
  order.clear();
  for (std::size_t i = 0; i < count; ++i) {
    if (bucket_of(i) == last_bucket) order.push_back(static_cast<std::uint32_t>(i));
  }
  std::sort(order.begin(), order.end(),
            [&](std::uint32_t a, std::uint32_t b) { return keys[a] != keys[b] ? keys[a] < keys[b] : a < b; });
  std::size_t end = 0;
  float tie = -std::numeric_limits<float>::infinity();  // the key of the last one that the limit let in
  for (; end < order.size(); ++end, ++rank) {
    const float key = keys[order[end]];
    if (mass < limit) {
      tie = key;
    } else if (rank >= keep && !(ties_stay && key == tie)) {
      break;
    }
    mass += static_cast<double>(weights[order[end]]);
  }
  scratch.kept.resize(count);
  for (std::size_t i = 0; i < count; ++i) scratch.kept[i] = bucket_of(i) < last_bucket ? 1 : 0;
  for (std::size_t i = 0; i < end; ++i) scratch.kept[order[i]] = 1;
}

// H = -sum p log p, in natural units, with p = weight / total and log p = score - maximum - log(total).
double entropy(const Survivors& row, float maximum, double total, const std::vector<float>& weights) {
  double sum = 0.0;
  for (std::size_t i = 0; i < row.size(); ++i) {
    if (weights[i] > 0.0f)
      sum += static_cast<double>(weights[i]) * static_cast<double>(row.scores[i] - maximum);
  }
  return log_double(total) - sum / total;
}

void filter_below(Survivors& row, double threshold, std::size_t keep, FilterScratch& scratch) {
  const float least = least_kept_score(row, keep, scratch);
  keep_if(row, [&](std::size_t i) {
    return static_cast<double>(scratch.weights[i]) >= threshold || row.scores[i] >= least;
  });
}

}  // namespace

void gather(std::span<const float> scores, float temperature, Survivors& result) {
  collect(scores, kRemoved, result);
  if (temperature != 1.0f) {
    for (float& score : result.scores) score /= temperature;
  }
}

void gather_top_k(std::span<const float> scores, float temperature, std::size_t k, Survivors& result,
                  FilterScratch& scratch) {
  scratch.top.begin(std::min(k, scores.size()));
  scratch.top.offer(scores, 0.0f, 0);
  const auto best = scratch.top.finish();
  if (best.size() < k) return gather(scores, temperature, result);  // the k-th is -inf: nothing is below it
  const float kth = best.back().score;
  if (temperature == 1.0f) return collect(scores, kth, result);
  // Division can round a slightly smaller score to the k-th's quotient, so scores within two units in the
  // last place are collected as well, divided, and cut exactly.
  collect(scores, kth - std::fabs(kth) * 0x1p-22f, result);
  for (float& score : result.scores) score /= temperature;
  const float cut = kth / temperature;
  keep_if(result, [&](std::size_t i) { return result.scores[i] >= cut; });
}

double softmax_weights(std::span<const float> scores, std::vector<float>& weights) {
  weights.resize(scores.size());
  const float maximum = *std::max_element(scores.begin(), scores.end());
  std::size_t i = 0;
  for (; i + kLanes <= scores.size(); i += kLanes) {
    store(exp_lanes(load(scores.data() + i) - maximum), weights.data() + i);
  }
  for (; i < scores.size(); ++i) weights[i] = exp_float(scores[i] - maximum);
  double total = 0.0;
  for (const float weight : weights) total += static_cast<double>(weight);
  return total;
}

void filter_top_p(Survivors& row, double p, std::size_t keep, FilterScratch& scratch) {
  const double total = softmax_weights(row.scores, scratch.weights);
  scratch.keys.resize(row.size());
  std::transform(row.scores.begin(), row.scores.end(), scratch.keys.begin(),
                 [](float score) { return -score; });
  flag_head(p * total, keep, false, scratch);
  keep_if(row, [&](std::size_t i) { return scratch.kept[i] != 0; });
}

void filter_min_p(Survivors& row, double min_p, std::size_t keep, FilterScratch& scratch) {
  softmax_weights(row.scores, scratch.weights);
  // The best weight is 1. Of equal scores at the edge of `keep` only the lower ids are safe, as in a stable
  // sort.
  scratch.top.begin(std::min(keep, row.size()));
  scratch.top.offer(row.scores, 0.0f, 0);
  const ScoredIndex least = scratch.top.finish().back();
  keep_if(row, [&](std::size_t i) {
    return static_cast<double>(scratch.weights[i]) >= min_p ||
           !comes_before(least, {row.scores[i], static_cast<std::int32_t>(i)});
  });
}

void filter_typical_p(Survivors& row, double mass, std::size_t keep, FilterScratch& scratch) {
  const double total = softmax_weights(row.scores, scratch.weights);
  const float maximum = *std::max_element(row.scores.begin(), row.scores.end());
  const float log_total = static_cast<float>(log_double(total));
  const float h = static_cast<float>(entropy(row, maximum, total, scratch.weights));
  scratch.keys.resize(row.size());
  for (std::size_t i = 0; i < row.size(); ++i) {
    scratch.keys[i] = std::fabs(-((row.scores[i] - maximum) - log_total) - h);
  }
  flag_head(mass * total, keep, true, scratch);
  keep_if(row, [&](std::size_t i) { return scratch.kept[i] != 0; });
}

void filter_epsilon(Survivors& row, double epsilon, std::size_t keep, FilterScratch& scratch) {
  const double total = softmax_weights(row.scores, scratch.weights);
  filter_below(row, epsilon * total, keep, scratch);
}

void filter_eta(Survivors& row, double epsilon, std::size_t keep, FilterScratch& scratch) {
  const double total = softmax_weights(row.scores, scratch.weights);
  const float maximum = *std::max_element(row.scores.begin(), row.scores.end());
  const double h = entropy(row, maximum, total, scratch.weights);
  const double eta = std::min(epsilon, std::sqrt(epsilon) * exp_double(-h));
  filter_below(row, eta * total, keep, scratch);
}

void renormalize(Survivors& row, FilterScratch& scratch) {
  const double total = softmax_weights(row.scores, scratch.weights);
  const float maximum = *std::max_element(row.scores.begin(), row.scores.end());
  const float log_total = static_cast<float>(log_double(total));
  for (float& score : row.scores) score = (score - maximum) - log_total;
}

}  // namespace sabiyarn
