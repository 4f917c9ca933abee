#include "operators/attention_operator.hpp"

#include <array>
#include <vector>

#include "core/kernels/attention.hpp"
#include "operators/input_shapes.hpp"

namespace sabiyarn {

namespace {

KvDtype cache_dtype(int type) {
  switch (type) {
    case ort::kFloat16:
      return KvDtype::kFloat16;
    case ort::kFloat:
      return KvDtype::kFloat32;
    case ort::kInt8:
      return KvDtype::kInt8;
    default:
      throw std::invalid_argument("past_key is neither float16, float32 nor int8");
  }
}

[[noreturn]] void refuse(const char* name, const Input& input, const char* allowed) {
  throw std::invalid_argument(std::string(name) + " has shape " + text_of(input.shape) + "; it must be " +
                              allowed);
}

// [heads, head_dim], with dimensions of 1 before, between or behind them.
const float* scale_of(const char* name, const Input& scale, std::int64_t heads, std::int64_t head_dim) {
  if (!scale) throw std::invalid_argument(std::string(name) + " is missing: an int8 cache needs it");
  std::vector<std::int64_t> squeezed, allowed;
  for (const std::int64_t size : scale.shape) {
    if (size != 1) squeezed.push_back(size);
  }
  for (const std::int64_t size : {heads, head_dim}) {
    if (size != 1) allowed.push_back(size);
  }
  if (squeezed != allowed) require_shape(scale, name, {heads, head_dim});
  return scale.as<float>();
}

}  // namespace

void AttentionOperator::compute(Context& context) const {
  const Input qkv = context.input(0), key = context.input(1), value = context.input(2);
  const Input segments = context.input(3), window = context.input(4), mask = context.input(5);
  const Input key_scale = context.input(6), value_scale = context.input(7);
  if (key.shape.size() != 5 || key.shape[4] != kKeyTile) {
    refuse("past_key", key, "[rows, heads, capacity / 16, head_dim, 16]");
  }
  const std::int64_t rows = key.shape[0], heads = key.shape[1], head_dim = key.shape[3];
  const AttentionShape shape{rows, heads, head_dim, key.shape[2] * kKeyTile};
  if (value.type != key.type) throw std::invalid_argument("past_value has another type than past_key");
  require_shape(value, "past_value", {rows, heads, shape.capacity, head_dim});
  const std::int64_t width = heads * head_dim;
  if (qkv.shape.size() != 2 || qkv.shape[1] != 3 * width) {
    throw std::invalid_argument("qkv has shape " + text_of(qkv.shape) + "; it must be [tokens, " +
                                std::to_string(3 * width) + "], 3 * heads * head_dim of past_key");
  }
  if (segments.shape.size() != 2 || segments.shape[1] != 5) refuse("segments", segments, "[segments, 5]");
  require_shape(window, "window", {2});
  if (mask.shape.size() != 1) refuse("attention_mask", mask, "flat: the masks one after another");

  const std::int64_t tokens = qkv.shape[0];
  AttentionInput input{shape,
                       tokens,
                       qkv.as<float>(),
                       // The cache belongs to the caller, who binds it as an input to be written.
                       static_cast<std::byte*>(const_cast<void*>(key.data)),
                       static_cast<std::byte*>(const_cast<void*>(value.data)),
                       cache_dtype(key.type),
                       {segments.as<AttentionSegment>(), static_cast<std::size_t>(segments.shape[0])},
                       window.as<std::int64_t>()[0],
                       window.as<std::int64_t>()[1],
                       {mask.as<float>(), static_cast<std::size_t>(mask.shape[0])}};
  if (input.dtype == KvDtype::kInt8) {
    input.key_scale = scale_of("key_scale", key_scale, heads, head_dim);
    input.value_scale = scale_of("value_scale", value_scale, heads, head_dim);
  } else if (key_scale || value_scale) {
    throw std::invalid_argument("key_scale or value_scale is given, but past_key is not int8");
  }
  check_attention(input);
  input.out = context.output<float>(0, std::array{tokens, width});
  compute_attention(input, *attention_kernels().front(),
                    [&](std::int64_t count, const auto& task) { context.parallel_for(count, task); });
}

}  // namespace sabiyarn
