// csrc/operators/attention_operator.hpp - attention that appends to a cache of keys and values in place.
#pragma once

#include "operators/operator.hpp"

namespace sabiyarn {

// qkv             float32 [tokens, 3 * heads * head_dim]
// past_key        float16, float32 or int8 [rows, heads, capacity / 16, head_dim, 16], written in place
// past_value      as past_key [rows, heads, capacity, head_dim]
// segments        int64 [segments, 5]: row, num_tokens, total, oldest, mask_at (AttentionSegment)
// window          int64 [2]: the positions that a token sees, and how many of them are sinks
// attention_mask  float32 [m]: the masks of the segments that have one
// key_scale, value_scale  float32, heads * head_dim values, of int8
// -> float32 [tokens, heads * head_dim]
class AttentionOperator {
 public:
  static constexpr const char* kName = "CachedAttention";
  static constexpr ort::ElementType kInputs[] = {ort::kFloat, ort::kUndefined, ort::kUndefined, ort::kInt64,
                                                 ort::kInt64, ort::kFloat,     ort::kFloat,     ort::kFloat};
  static constexpr ort::ElementType kOutputs[] = {ort::kFloat};
  static constexpr std::size_t kRequiredInputs = 6;

  explicit AttentionOperator(const Attributes&) {}
  void compute(Context& context) const;
};

}  // namespace sabiyarn
