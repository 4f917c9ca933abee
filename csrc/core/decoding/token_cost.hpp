// csrc/core/decoding/token_cost.hpp - what one more token costs in a run of the model, learnt from the runs' times.
//
// A run of few tokens takes about plain * (1 + cost * more tokens): weights are read once for all of them. `cost` is
// 0.05 where memory is the bound, 0.2 to 0.3 where computing begins to count, and more on CPUs without dot product
// instructions.
#pragma once

#include <cstddef>

namespace sabiyarn {

class TokenCost {
 public:
  // What one token more costs in a run that gives each of `rows` rows its next token, in tokens that come without it in
  // the same time; at least 1 row.
  float price(std::size_t rows) const noexcept {
    const auto count = static_cast<double>(rows);
    return static_cast<float>(cost_ * count / (1.0 + cost_ * (count - 1.0)));
  }

  // Learns from a run of `rows` rows' next tokens and `more` tokens beside them, which took `seconds`.
  //
  // Both estimates follow the median: a run that took longer raises them by a factor, one that took less lowers them by
  // it. So a run that waited for another program counts no more than any other.
  void note(std::size_t rows, std::size_t more, double seconds) noexcept;

 private:
  double cost_ = 0.25;            // in runs of one token
  double plain_ = 0.0;            // seconds of a run without more tokens
  std::size_t plain_rows_ = 0;    // that such a run had
  std::size_t num_plain_ = 0;     // runs from which it is known
  std::size_t num_compared_ = 0;  // runs from which cost_ is known
};

}  // namespace sabiyarn
