// csrc/core/kernels/attention.hpp - causal attention of new tokens over keys and values that a cache holds.
//
// The cache of one layer is [rows, heads, capacity, head_dim] for keys and the same for values, as KvCache
// lays it out: float16, float32, or int8 in units of a scale for each channel. The new tokens' keys and
// values are rounded to that type and written behind the row's past first, and then read like all others, so
// a result does not depend on how a text is cut into runs, but for the last bits: few tokens at a time are
// summed in another order than many.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "core/kv/kv_cache.hpp"

namespace sabiyarn {

struct AttentionShape {
  std::int64_t rows;
  std::int64_t tokens;  // new ones of each row
  std::int64_t heads;
  std::int64_t head_dim;  // a multiple of 8
  std::int64_t capacity;
};

struct AttentionInput {
  AttentionShape shape;
  const float* qkv;  // [rows, tokens, 3, heads, head_dim]
  std::byte* keys;
  std::byte* values;
  KvDtype dtype;
  const std::int32_t* last;            // [rows]: slot of each row's newest token, so its length less 1
  const float* key_scale = nullptr;    // [heads, head_dim], of an int8 cache
  const float* value_scale = nullptr;  // [heads, head_dim]
  float* out;                          // [rows, tokens, heads, head_dim]
};

struct AttentionKernels {
  const char* name;
  // Writes the new keys and values of one head of one row.
  void (*append)(const AttentionInput& input, std::int64_t row, std::int64_t head) noexcept;
  // Attention of tokens first ... end - 1 of one head of one row. `scratch` has attention_scratch() floats.
  void (*attend)(const AttentionInput& input, std::int64_t row, std::int64_t head, std::int64_t first,
                 std::int64_t end, float* scratch) noexcept;
};

// New tokens that one call of attend() takes at most: keys are unpacked once for all of them.
inline constexpr std::int64_t kAttentionQueries = 64;
std::size_t attention_scratch(std::int64_t head_dim) noexcept;

// Those that this CPU can run, the best first; the last one runs everywhere.
std::span<const AttentionKernels* const> attention_kernels() noexcept;

}  // namespace sabiyarn
