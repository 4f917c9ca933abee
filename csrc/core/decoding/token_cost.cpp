#include "core/decoding/token_cost.hpp"

#include <algorithm>

namespace sabiyarn {

namespace {

constexpr std::size_t kKnown = 4;  // plain runs after which their time is good enough to compare with
constexpr double kLeastCost = 1.0 / 64.0;
constexpr double kMostCost = 1.0;  // a run of its own

// The factor by which the n-th sample moves an estimate: a half at first, 5 % in the long run.
double factor(std::size_t n) noexcept { return 1.0 + std::max(1.0 / static_cast<double>(n + 2), 0.05); }

}  // namespace

void TokenCost::note(std::size_t rows, std::size_t more, double seconds) noexcept {
  if (rows != plain_rows_) {
    plain_rows_ = rows;
    num_plain_ = 0;
  }
  if (more == 0) {
    if (num_plain_ == 0) {
      plain_ = seconds;
    } else {
      plain_ *= seconds > plain_ ? factor(num_plain_) : 1.0 / factor(num_plain_);
    }
    ++num_plain_;
    return;
  }
  if (num_plain_ < kKnown) return;
  const double others = static_cast<double>(rows) - 1.0;
  const double expected = plain_ * (1.0 + cost_ * static_cast<double>(more) / (1.0 + cost_ * others));
  const double step = factor(num_compared_++);
  cost_ = std::clamp(seconds > expected ? cost_ * step : cost_ / step, kLeastCost, kMostCost);
}

}  // namespace sabiyarn
