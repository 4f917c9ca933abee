#include "scalar_twins.hpp"

#include <algorithm>
#include <bit>
#include <limits>

// The core's own scalar path: half.cpp without the parts for ARM, under another name.
#undef __aarch64__
#define sabiyarn sabiyarn_scalar
#include "core/simd/half.cpp"
#undef sabiyarn

namespace twins {
namespace {

constexpr std::size_t kChains = 16, kFlush = 512;

// exp_in_place of exact_math.hpp for one float.
float exp_one(float x) {
  const bool in_range = x >= -87.3f;
  const float clamped = in_range ? x : -87.3f;
  const float shifted = clamped * 0x1.715476p+0f + 0x1.8p+23f;
  const float n = shifted - 0x1.8p+23f;
  const float r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  float sum = r * (1.0f / 5040.0f) + (1.0f / 720.0f);
  sum = sum * r + (1.0f / 120.0f);
  sum = sum * r + (1.0f / 24.0f);
  sum = sum * r + (1.0f / 6.0f);
  sum = sum * r + 0.5f;
  sum = sum * (r * r) + r;
  sum = sum + 1.0f;
  const std::uint32_t scaled =
      std::bit_cast<std::uint32_t>(sum) + (std::bit_cast<std::uint32_t>(shifted) << 23);
  return in_range ? std::bit_cast<float>(scaled) : 0.0f;
}

}  // namespace

void float_to_half(const float* source, std::uint16_t* target, std::size_t count) {
  sabiyarn_scalar::float_to_half(source, target, count);
}

void half_to_float(const std::uint16_t* source, float* target, std::size_t count) {
  sabiyarn_scalar::half_to_float(source, target, count);
}

std::int32_t argmax(std::span<const float> scores) {
  float best = -std::numeric_limits<float>::infinity();
  std::int32_t where = -1;
  bool has_nan = false;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    has_nan |= scores[i] != scores[i];
    if (scores[i] > best) {
      best = scores[i];
      where = static_cast<std::int32_t>(i);
    }
  }
  return has_nan ? -1 : where;
}

double exp_weights(std::span<const float> scores, float maximum, float* weights) {
  double total = 0.0;
  std::size_t i = 0;
  while (i + kChains <= scores.size()) {
    float sums[kChains] = {};
    const std::size_t end = std::min(scores.size() - kChains + 1, i + kFlush);
    for (; i < end; i += kChains) {
      for (std::size_t c = 0; c < kChains; ++c) {
        weights[i + c] = exp_one(scores[i + c] - maximum);
        sums[c] += weights[i + c];
      }
    }
    for (std::size_t c = 0; c < 4; ++c) {
      total += static_cast<double>((sums[c] + sums[4 + c]) + (sums[8 + c] + sums[12 + c]));
    }
  }
  for (; i < scores.size(); ++i) {
    weights[i] = exp_one(scores[i] - maximum);
    total += static_cast<double>(weights[i]);
  }
  return total;
}

void log_softmax(std::span<float> scores, float maximum, float log_sum) {
  for (float& score : scores) score = (score - maximum) - log_sum;
}

std::span<const sabiyarn::ScoredIndex> top_k(std::span<const float> scores, std::size_t k,
                                             std::vector<sabiyarn::ScoredIndex>& buffer) {
  const std::size_t full = std::max<std::size_t>(4 * k, 256);
  if (buffer.size() < full) buffer.resize(full);
  float threshold = -std::numeric_limits<float>::infinity();
  std::size_t count = 0;
  const auto shrink = [&] {
    const auto kept = buffer.begin() + static_cast<std::ptrdiff_t>(k);
    std::nth_element(buffer.begin(), kept - 1, buffer.begin() + static_cast<std::ptrdiff_t>(count),
                     sabiyarn::comes_before);
    count = k;
    threshold = (kept - 1)->score;
  };
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (!(scores[i] > threshold)) continue;
    buffer[count++] = {scores[i], static_cast<std::int32_t>(i)};
    if (count == full) shrink();
  }
  if (count > k) shrink();
  std::sort(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(count), sabiyarn::comes_before);
  return {buffer.data(), count};
}

std::size_t collect(std::span<const float> scores, float cut, std::int32_t* ids, float* kept) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < scores.size(); ++i) {
    if (!(scores[i] >= cut)) continue;
    ids[count] = static_cast<std::int32_t>(i);
    kept[count++] = scores[i];
  }
  return count;
}

}  // namespace twins
