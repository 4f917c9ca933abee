// csrc/operators/attention_operator.hpp - causal attention that appends to a cache of keys and values in
// place.
#pragma once

#include "operators/operator.hpp"

namespace sabiyarn {

// qkv        float32 [batch, sequence, 3 * heads * head_dim]
// past_key   float16, float32 or int8 [batch, heads, capacity, head_dim]: the new keys are written into it
// past_value as past_key
// seqlens_k  int32 [batch]: each row's length with the new tokens, less 1
// key_scale, value_scale  float32 [heads, head_dim] (leading and inner dimensions of 1 may stand between), of
// int8
// -> float32 [batch, sequence, heads * head_dim]
class AttentionOperator {
 public:
  static constexpr const char* kName = "CachedAttention";
  static constexpr ort::ElementType kInputs[] = {ort::kFloat, ort::kUndefined, ort::kUndefined,
                                                 ort::kInt32, ort::kFloat,     ort::kFloat};
  static constexpr ort::ElementType kOutputs[] = {ort::kFloat};
  static constexpr std::size_t kRequiredInputs = 4;

  explicit AttentionOperator(const Attributes&) {}
  void compute(Context& context) const;
};

}  // namespace sabiyarn
