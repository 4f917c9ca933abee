#include "operators/attention_operator.hpp"

#include <algorithm>

#include "core/kernels/attention.hpp"

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

}  // namespace

void AttentionOperator::compute(Context& context) const {
  const Input qkv = context.input(0), key = context.input(1), value = context.input(2),
              last = context.input(3);
  const Input key_scale = context.input(4), value_scale = context.input(5);
  if (qkv.shape.size() != 3 || key.shape.size() != 4 || value.shape != key.shape || value.type != key.type) {
    throw std::invalid_argument("qkv, past_key and past_value do not fit each other");
  }
  const std::int64_t rows = key.shape[0], heads = key.shape[1], head_dim = key.shape[3];
  const AttentionShape shape{rows, qkv.shape[1], heads, head_dim, key.shape[2]};
  if (qkv.shape[0] != rows || qkv.shape[2] != 3 * heads * head_dim || head_dim % 8 != 0 ||
      last.shape != std::vector{rows}) {
    throw std::invalid_argument("qkv or seqlens_k does not fit past_key");
  }
  for (std::int64_t row = 0; row < rows; ++row) {
    const std::int64_t newest = last.as<std::int32_t>()[row];
    if (newest < shape.tokens - 1 || newest >= shape.capacity) {
      throw std::invalid_argument(
          "seqlens_k names a slot that the cache has not, or less than the new tokens");
    }
  }
  const KvDtype dtype = cache_dtype(key.type);
  if (dtype == KvDtype::kInt8 && !(key_scale && value_scale)) {
    throw std::invalid_argument("an int8 cache needs key_scale and value_scale");
  }
  // The cache belongs to the caller, who binds it as an input to be written.
  const AttentionInput input{shape,
                             qkv.as<float>(),
                             static_cast<std::byte*>(const_cast<void*>(key.data)),
                             static_cast<std::byte*>(const_cast<void*>(value.data)),
                             dtype,
                             last.as<std::int32_t>(),
                             key_scale.as<float>(),
                             value_scale.as<float>(),
                             context.output<float>(0, {rows, shape.tokens, heads * head_dim})};
  if (shape.tokens == 0) return;

  const AttentionKernels& kernels = *attention_kernels().front();
  const std::int64_t groups = (shape.tokens + kAttentionQueries - 1) / kAttentionQueries;
  const auto attend = [&](std::int64_t head, std::int64_t group) {
    thread_local std::vector<float> scratch;  // kept by onnxruntime's threads
    scratch.resize(attention_scratch(head_dim));
    const std::int64_t first = group * kAttentionQueries;
    kernels.attend(input, head / heads, head % heads, first,
                   std::min(first + kAttentionQueries, shape.tokens), scratch.data());
  };
  if (groups == 1) {
    context.parallel_for(rows * heads, [&](std::int64_t head) {
      kernels.append(input, head / heads, head % heads);
      attend(head, 0);
    });
    return;
  }
  context.parallel_for(rows * heads,
                       [&](std::int64_t head) { kernels.append(input, head / heads, head % heads); });
  // The last queries see the most keys: they come first, so that no thread is left with them at the end.
  context.parallel_for(rows * heads * groups, [&](std::int64_t task) {
    attend(task % (rows * heads), groups - 1 - task / (rows * heads));
  });
}

}  // namespace sabiyarn
