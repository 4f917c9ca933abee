#include "core/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "core/exact_math.hpp"
#include "core/row_math.hpp"

namespace sabiyarn {

Sampler::Sampler(const DecodeOptions& options, std::size_t vocab_size)
    : options_(options),
      keep_(options.num_beams == 1 ? 1 : std::max<std::size_t>(2, options.eos_token_id.size() + 1)) {
  if (!options.do_sample) return;
  row_.ids.reserve(vocab_size);
  row_.scores.reserve(vocab_size);
  scratch_.weights.reserve(vocab_size);
  scratch_.keys.reserve(vocab_size);
  scratch_.order.reserve(vocab_size);
  scratch_.kept.reserve(vocab_size);
  weights_.reserve(vocab_size);
}

const Survivors& Sampler::filter(std::span<const float> scores, std::size_t row) {
  const DecodeOptions& o = options_;
  const auto temperature = static_cast<float>(o.temperature);
  const float maximum = checked_maximum(scores, row);
  if (std::isinf(maximum)) {  // the processors before removed every token
    row_.ids.clear();
    row_.scores.clear();
    return row_;
  }
  if (!std::isfinite(maximum / temperature)) {
    throw std::invalid_argument("scores: row " + std::to_string(row) +
                                " overflows float32 when divided by temperature " +
                                std::to_string(o.temperature));
  }
  if (o.top_k > 0) {
    gather_top_k(scores, temperature, std::max(static_cast<std::size_t>(o.top_k), keep_), row_, scratch_);
  } else {
    gather(scores, temperature, row_);
  }
  if (o.top_p < 1.0) filter_top_p(row_, o.top_p, keep_, scratch_);
  if (o.min_p) filter_min_p(row_, *o.min_p, keep_, scratch_);
  if (o.typical_p < 1.0) filter_typical_p(row_, o.typical_p, keep_, scratch_);
  if (o.epsilon_cutoff > 0.0 && o.epsilon_cutoff < 1.0)
    filter_epsilon(row_, o.epsilon_cutoff, keep_, scratch_);
  if (o.eta_cutoff > 0.0 && o.eta_cutoff < 1.0) filter_eta(row_, o.eta_cutoff, keep_, scratch_);
  if (o.renormalize_logits) renormalize(row_, scratch_);
  total_ = softmax_weights(row_.scores, weights_);
  return row_;
}

Sampler::Draw Sampler::draw(double u) {
  const double target = u * total_;
  double cumulative = 0.0;
  std::size_t chosen = 0;
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    if (weights_[i] == 0.0f) continue;
    chosen = i;  // rounding may leave the sum at the target: then the last possible token
    cumulative += static_cast<double>(weights_[i]);
    if (cumulative > target) break;
  }
  const float maximum = *std::max_element(row_.scores.begin(), row_.scores.end());
  const float log_total = static_cast<float>(log_double(total_));
  return {row_.ids[chosen], (row_.scores[chosen] - maximum) - log_total};
}

}  // namespace sabiyarn
