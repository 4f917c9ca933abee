#include "core/selection/sampler.hpp"

#include <algorithm>
#include <cmath>
#include <sstream>
#include <stdexcept>

#include "core/selection/row_math.hpp"
#include "core/simd/exact_math.hpp"

namespace sabiyarn {

Sampler::Sampler(const DecodeOptions& options)
    : options_(options),
      keep_(options.num_beams == 1 ? 1 : std::max<std::size_t>(2, options.eos_token_id.size() + 1)) {}

const Candidates& Sampler::filter(std::span<const float> scores, std::size_t row) {
  const DecodeOptions& o = options_;
  row_.reserve(scores.size());
  scratch_.reserve(scores.size());
  if (o.num_beams == 1) draw_.reserve(scores.size());
  const auto temperature = static_cast<float>(o.temperature);
  const float maximum = checked_maximum(scores, row);
  if (std::isinf(maximum)) {  // the processors before removed every token
    row_.clear();
    return row_;
  }
  if (!std::isfinite(maximum / temperature)) {
    std::ostringstream text;  // std::to_string() would show 1e-20 as 0.000000
    text << "scores: row " << row << " overflows float32 when divided by temperature " << o.temperature;
    throw std::invalid_argument(text.str());
  }
  if (o.top_k > 0) {
    row_.gather_top_k(scores, temperature, std::max(static_cast<std::size_t>(o.top_k), keep_), scratch_.top);
  } else {
    row_.gather(scores, temperature);
  }
  if (o.top_p < 1.0) filter_top_p(row_, o.top_p, keep_, scratch_);
  if (o.min_p) filter_min_p(row_, *o.min_p, keep_, scratch_);
  if (o.typical_p < 1.0) filter_typical_p(row_, o.typical_p, keep_, scratch_);
  if (o.epsilon_cutoff > 0.0 && o.epsilon_cutoff < 1.0)
    filter_epsilon(row_, o.epsilon_cutoff, keep_, scratch_);
  if (o.eta_cutoff > 0.0 && o.eta_cutoff < 1.0) filter_eta(row_, o.eta_cutoff, keep_, scratch_);
  if (o.renormalize_logits) renormalize(row_);
  return row_;
}

void Sampler::begin_draws() { draw_.set_scores(row_.scores()); }

Sampler::Draw Sampler::draw(double u) const {
  const std::size_t place = draw_.draw(u);
  const float log_total = static_cast<float>(log_double(draw_.total()));
  return {row_.ids()[place], (row_.scores()[place] - row_.maximum()) - log_total};
}

}  // namespace sabiyarn
