// csrc/core/kernels/attention_kernel.hpp - the loops of attention.hpp around the arithmetic of one instruction set.
//
// Included once by each attention_<set>.cpp, behind its definitions of
//   SABIYARN_KERNEL              attributes of every function here: the instruction set, where it is not the
//   baseline broadcast8(value)            eight times the same multiply_add(a, b, c)        a * b + c
//   load_halves(source)          eight float16 as float32
//   sums_of(vectors)             the sum of each of eight vectors' lanes
//   transpose(vectors)           of eight vectors, in place: lane i of vector j becomes lane j of vector i
// All of it has internal linkage: the linker must never take a copy that was made for another instruction
// set.
//
// Scores are never kept for the whole past: keys come in tiles, and what was summed so far is rescaled
// whenever a tile brings a larger score (Milakov and Gimelshein, "Online normalizer calculation for softmax",
// 2018).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/kernels/attention.hpp"
#include "core/simd/exact_math.hpp"
#include "core/simd/half.hpp"
#include "core/simd/lanes.hpp"

namespace sabiyarn {
namespace {

constexpr std::int64_t kKeys = 64;  // of a tile
// Unpacking keys costs as much as four queries of their own (x86-64; on ARM, in instructions, five). Where
// the cache is larger than the CPU's, reading it again costs too.
constexpr std::int64_t kFewQueries = 3;
constexpr std::int64_t kRowsAtOnce = 6;  // of a product: with two vectors of columns it fills 16 registers

// out[r, 8 v ...] = or += sum over k of a[r, k] * b[k, 8 v ...], for kRows rows and kVectors vectors of
// columns.
template <int kRows, int kVectors>
[[gnu::always_inline]] SABIYARN_KERNEL inline void product(const float* a, std::int64_t a_stride,
                                                           const float* b, std::int64_t b_stride, float* out,
                                                           std::int64_t out_stride, std::int64_t depth,
                                                           bool add) noexcept {
  Eight sums[std::size_t{kRows}][std::size_t{kVectors}] = {};
  if (add) {
    SABIYARN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      SABIYARN_UNROLL
      for (int v = 0; v < kVectors; ++v) sums[r][v] = load8(out + r * out_stride + 8 * v);
    }
  }
  for (std::int64_t k = 0; k < depth; ++k, b += b_stride) {
    Eight columns[std::size_t{kVectors}];
    SABIYARN_UNROLL
    for (int v = 0; v < kVectors; ++v) columns[v] = load8(b + 8 * v);
    SABIYARN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Eight factor = broadcast8(a[r * a_stride + k]);
      SABIYARN_UNROLL
      for (int v = 0; v < kVectors; ++v) sums[r][v] = multiply_add(factor, columns[v], sums[r][v]);
    }
  }
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    SABIYARN_UNROLL
    for (int v = 0; v < kVectors; ++v) store8(sums[r][v], out + r * out_stride + 8 * v);
  }
}

// Functions of their own, so that all sums stay in registers.
#define SABIYARN_PRODUCT(name, kRows, kVectors)                                                           \
  [[gnu::noinline]] SABIYARN_KERNEL void name(const float* a, std::int64_t a_stride, const float* b,      \
                                              std::int64_t b_stride, float* out, std::int64_t out_stride, \
                                              std::int64_t depth, bool add) noexcept {                    \
    product<kRows, kVectors>(a, a_stride, b, b_stride, out, out_stride, depth, add);                      \
  }
SABIYARN_PRODUCT(product_1, 1, 2)
SABIYARN_PRODUCT(product_2, 2, 2)
SABIYARN_PRODUCT(product_3, 3, 2)
SABIYARN_PRODUCT(product_4, 4, 2)
SABIYARN_PRODUCT(product_5, 5, 2)
SABIYARN_PRODUCT(product_6, 6, 2)
SABIYARN_PRODUCT(narrow_product, 1, 1)
#undef SABIYARN_PRODUCT

using Product = void (*)(const float*, std::int64_t, const float*, std::int64_t, float*, std::int64_t,
                         std::int64_t, bool) noexcept;
constexpr Product kProducts[kRowsAtOnce + 1] = {nullptr,   product_1, product_2, product_3,
                                                product_4, product_5, product_6};

// Columns are a multiple of 8, and nearly always of 16.
SABIYARN_KERNEL inline void product_all(std::int64_t rows, std::int64_t columns, const float* a,
                                        std::int64_t a_stride, const float* b, std::int64_t b_stride,
                                        float* out, std::int64_t out_stride, std::int64_t depth,
                                        bool add) noexcept {
  std::int64_t c = 0;
  for (; c + 16 <= columns; c += 16) {
    for (std::int64_t r = 0; r < rows; r += kRowsAtOnce) {
      kProducts[std::min(kRowsAtOnce, rows - r)](a + r * a_stride, a_stride, b + c, b_stride,
                                                 out + r * out_stride + c, out_stride, depth, add);
    }
  }
  for (std::int64_t r = 0; c < columns && r < rows; ++r) {
    narrow_product(a + r * a_stride, a_stride, b + c, b_stride, out + r * out_stride + c, out_stride, depth,
                   add);
  }
}

// Weights of a tile's scores, in place, and their sum; `largest` and what was summed before are brought up to
// date.
[[gnu::noinline]] SABIYARN_KERNEL void weigh(float* scores, std::int64_t count, float& largest, float& sum,
                                             float* mixed, std::int64_t head_dim) noexcept {
  Eight top = broadcast8(-std::numeric_limits<float>::infinity());
  for (std::int64_t t = 0; t < count; t += 8) top = maximum(load8(scores + t), top);
  float lanes[8];
  store8(top, lanes);
  const float tile_largest = *std::max_element(lanes, lanes + 8);
  if (tile_largest > largest) {
    if (sum != 0.0f) {
      const float rescale = exp_float(largest - tile_largest);
      sum *= rescale;
      for (std::int64_t d = 0; d < head_dim; d += 8)
        store8(load8(mixed + d) * broadcast8(rescale), mixed + d);
    }
    largest = tile_largest;
  }
  Eight sums = {};
  for (std::int64_t t = 0; t < count; t += 8) {
    Eight weight = load8(scores + t) - broadcast8(largest);
    exp_in_place(weight);
    store8(weight, scores + t);
    sums = sums + weight;
  }
  store8(sums, lanes);
  for (const float lane : lanes) sum += lane;
}

template <typename Value>
[[gnu::always_inline]] SABIYARN_KERNEL inline void finish(const AttentionInput& input, const float* mixed,
                                                          float sum, std::int64_t head, float* out) noexcept {
  const std::int64_t head_dim = input.shape.head_dim;
  const float share = 1.0f / sum;
  for (std::int64_t d = 0; d < head_dim; d += 8) {
    Eight value = load8(mixed + d) * broadcast8(share);
    if constexpr (sizeof(Value) == 1) value = value * load8(input.value_scale + head * head_dim + d);
    store8(value, out + d);
  }
}

template <typename Value>
[[gnu::always_inline]] SABIYARN_KERNEL inline void scaled_query(const AttentionInput& input,
                                                                const float* query, std::int64_t head,
                                                                float* target) noexcept {
  const std::int64_t head_dim = input.shape.head_dim;
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  for (std::int64_t d = 0; d < head_dim; d += 8) {
    Eight value = load8(query + d) * broadcast8(scale);
    if constexpr (sizeof(Value) == 1) value = value * load8(input.key_scale + head * head_dim + d);
    store8(value, target + d);
  }
}

// One query at a time: keys and values are read once, in their order, and used where they are.
template <typename Value>
[[gnu::always_inline]] SABIYARN_KERNEL inline void attend_one(const AttentionInput& input, const float* query,
                                                              const Value* keys, const Value* values,
                                                              std::int64_t length, std::int64_t head,
                                                              float* out, float* scratch) noexcept {
  const std::int64_t head_dim = input.shape.head_dim;
  float *q = scratch, *mixed = q + head_dim, *scores = mixed + head_dim;
  scaled_query<Value>(input, query, head, q);
  std::fill(mixed, mixed + head_dim, 0.0f);
  float largest = -std::numeric_limits<float>::infinity(), sum = 0.0f;
  for (std::int64_t begin = 0; begin < length; begin += kKeys) {
    const std::int64_t count = std::min(kKeys, length - begin);
    const Value *key = keys + begin * head_dim, *value = values + begin * head_dim;
    std::int64_t t = 0;
    for (; t + 8 <= count; t += 8, key += 8 * head_dim) {
      Eight partial[8] = {};
      for (std::int64_t d = 0; d < head_dim; d += 8) {
        const Eight part = load8(q + d);
        SABIYARN_UNROLL
        for (int i = 0; i < 8; ++i) {
          partial[i] = multiply_add(part, load8(key + i * head_dim + d), partial[i]);
        }
      }
      store8(sums_of(partial), scores + t);
    }
    if (t < count) {
      Eight partial[8] = {};
      for (std::int64_t i = 0; i < count - t; ++i) {
        for (std::int64_t d = 0; d < head_dim; d += 8) {
          partial[i] = multiply_add(load8(q + d), load8(key + i * head_dim + d), partial[i]);
        }
      }
      store8(sums_of(partial), scores + t);
      std::fill(scores + count, scores + t + 8, -std::numeric_limits<float>::infinity());
    }
    weigh(scores, count, largest, sum, mixed, head_dim);
    std::int64_t d = 0;
    for (; d + 32 <= head_dim; d += 32) {
      Eight sums[4];
      SABIYARN_UNROLL
      for (int v = 0; v < 4; ++v) sums[v] = load8(mixed + d + 8 * v);
      for (std::int64_t k = 0; k < count; ++k) {
        const Eight weight = broadcast8(scores[k]);
        SABIYARN_UNROLL
        for (int v = 0; v < 4; ++v) {
          sums[v] = multiply_add(weight, load8(value + k * head_dim + d + 8 * v), sums[v]);
        }
      }
      SABIYARN_UNROLL
      for (int v = 0; v < 4; ++v) store8(sums[v], mixed + d + 8 * v);
    }
    for (; d < head_dim; d += 8) {
      Eight sums = load8(mixed + d);
      for (std::int64_t k = 0; k < count; ++k) {
        sums = multiply_add(broadcast8(scores[k]), load8(value + k * head_dim + d), sums);
      }
      store8(sums, mixed + d);
    }
  }
  finish<Value>(input, mixed, sum, head, out);
}

// Many queries: tiles of keys are unpacked once for all of them, and products of matrices do the rest.
template <typename Value>
[[gnu::always_inline]] SABIYARN_KERNEL inline void attend_many(
    const AttentionInput& input, const float* queries, std::int64_t stride, const Value* keys,
    const Value* values, std::int64_t past, std::int64_t count, std::int64_t head, float* out,
    std::int64_t out_stride, float* scratch) noexcept {
  const std::int64_t head_dim = input.shape.head_dim;
  float *q = scratch, *mixed = q + kAttentionQueries * head_dim,
        *scores = mixed + kAttentionQueries * head_dim;
  float *key_tile = scores + kAttentionQueries * kKeys, *value_tile = key_tile + kKeys * head_dim;
  float largest[kAttentionQueries], sums[kAttentionQueries];
  for (std::int64_t i = 0; i < count; ++i) {
    scaled_query<Value>(input, queries + i * stride, head, q + i * head_dim);
    largest[i] = -std::numeric_limits<float>::infinity();
    sums[i] = 0.0f;
  }
  std::fill(mixed, mixed + count * head_dim, 0.0f);
  const std::int64_t length = past + count;
  for (std::int64_t begin = 0; begin < length; begin += kKeys) {
    const std::int64_t num_keys = std::min(kKeys, length - begin);
    // Keys stand in columns, so that one query's scores are next to each other; the tile's rest is zeros.
    for (std::int64_t t = 0; t < kKeys; t += 8) {
      for (std::int64_t d = 0; d < head_dim; d += 8) {
        Eight block[8];
        SABIYARN_UNROLL
        for (std::int64_t k = 0; k < 8; ++k) {
          block[k] = t + k < num_keys ? load8(keys + (begin + t + k) * head_dim + d) : Eight{};
        }
        transpose(block);
        SABIYARN_UNROLL
        for (std::int64_t k = 0; k < 8; ++k) store8(block[k], key_tile + (d + k) * kKeys + t);
      }
    }
    for (std::int64_t t = 0; t < num_keys; ++t) {
      for (std::int64_t d = 0; d < head_dim; d += 8) {
        store8(load8(values + (begin + t) * head_dim + d), value_tile + t * head_dim + d);
      }
    }
    product_all(count, kKeys, q, head_dim, key_tile, kKeys, scores, kKeys, head_dim, false);
    // Query i sees the keys before slot past + i + 1; the first ones may see none of this tile.
    const std::int64_t first = std::max<std::int64_t>(0, begin - past);
    for (std::int64_t i = first; i < count; ++i) {
      float* row = scores + i * kKeys;
      const std::int64_t seen = std::min(kKeys, past + i + 1 - begin);
      std::fill(row + seen, row + kKeys, -std::numeric_limits<float>::infinity());
      weigh(row, kKeys, largest[i], sums[i], mixed + i * head_dim, head_dim);
    }
    product_all(count - first, head_dim, scores + first * kKeys, kKeys, value_tile, head_dim,
                mixed + first * head_dim, head_dim, num_keys, true);
  }
  for (std::int64_t i = 0; i < count; ++i) {
    finish<Value>(input, mixed + i * head_dim, sums[i], head, out + i * out_stride);
  }
}

template <typename Value>
[[gnu::always_inline]] SABIYARN_KERNEL inline void attend_as(const AttentionInput& input, std::int64_t row,
                                                             std::int64_t head, std::int64_t first,
                                                             std::int64_t end, float* scratch) noexcept {
  const AttentionShape& shape = input.shape;
  const std::int64_t width = shape.heads * shape.head_dim;
  const std::int64_t offset = (row * shape.heads + head) * shape.capacity * shape.head_dim;
  const Value* keys = reinterpret_cast<const Value*>(input.keys) + offset;
  const Value* values = reinterpret_cast<const Value*>(input.values) + offset;
  const std::int64_t token = row * shape.tokens + first;
  const float* query = input.qkv + token * 3 * width + head * shape.head_dim;
  float* out = input.out + token * width + head * shape.head_dim;
  const std::int64_t past = input.last[row] + 1 - shape.tokens + first;  // slots before the first query's own
  if (end - first > kFewQueries) {
    attend_many<Value>(input, query, 3 * width, keys, values, past, end - first, head, out, width, scratch);
    return;
  }
  for (std::int64_t i = 0; i < end - first; ++i) {
    attend_one<Value>(input, query + i * 3 * width, keys, values, past + i + 1, head, out + i * width,
                      scratch);
  }
}

#define SABIYARN_ATTEND(name, Value)                                                                   \
  [[gnu::noinline]] SABIYARN_KERNEL void name(const AttentionInput& input, std::int64_t row,           \
                                              std::int64_t head, std::int64_t first, std::int64_t end, \
                                              float* scratch) noexcept {                               \
    attend_as<Value>(input, row, head, first, end, scratch);                                           \
  }
SABIYARN_ATTEND(attend_halves, half_bits)
SABIYARN_ATTEND(attend_floats, float)
SABIYARN_ATTEND(attend_bytes, std::int8_t)
#undef SABIYARN_ATTEND

SABIYARN_KERNEL inline void attend(const AttentionInput& input, std::int64_t row, std::int64_t head,
                                   std::int64_t first, std::int64_t end, float* scratch) noexcept {
  switch (input.dtype) {
    case KvDtype::kFloat16:
      attend_halves(input, row, head, first, end, scratch);
      break;
    case KvDtype::kFloat32:
      attend_floats(input, row, head, first, end, scratch);
      break;
    case KvDtype::kInt8:
      attend_bytes(input, row, head, first, end, scratch);
      break;
  }
}

// As onnxruntime's QuantizeLinear: to the nearest whole number of units, even on ties, clipped to 8 bits.
SABIYARN_KERNEL inline void append_bytes(const float* source, const float* scale, std::int8_t* target,
                                         std::int64_t count) noexcept {
  for (std::int64_t d = 0; d < count; ++d) {
    const float units = source[d] * (1.0f / scale[d]);
    const float clipped = units < -128.0f ? -128.0f : units > 127.0f ? 127.0f : units;
    const float shifted = clipped + 12582912.0f;  // 1.5 * 2^23: leaves no bits for a fraction
    std::int32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    target[d] = static_cast<std::int8_t>(bits - 0x4b400000);
  }
}

SABIYARN_KERNEL inline void append(const AttentionInput& input, std::int64_t row,
                                   std::int64_t head) noexcept {
  const AttentionShape& shape = input.shape;
  const std::int64_t head_dim = shape.head_dim, width = shape.heads * head_dim;
  const auto bytes = static_cast<std::int64_t>(value_bytes(input.dtype));
  const std::int64_t slot = (row * shape.heads + head) * shape.capacity + input.last[row] + 1 - shape.tokens;
  for (int side = 0; side < 2; ++side) {
    const float* source = input.qkv + row * shape.tokens * 3 * width + (1 + side) * width + head * head_dim;
    std::byte* target = (side == 0 ? input.keys : input.values) + slot * head_dim * bytes;
    const float* scale = side == 0 ? input.key_scale : input.value_scale;
    for (std::int64_t i = 0; i < shape.tokens; ++i, source += 3 * width, target += head_dim * bytes) {
      switch (input.dtype) {
        case KvDtype::kFloat16:
          float_to_half(source, reinterpret_cast<half_bits*>(target), static_cast<std::size_t>(head_dim));
          break;
        case KvDtype::kFloat32:
          std::memcpy(target, source, static_cast<std::size_t>(head_dim * bytes));
          break;
        case KvDtype::kInt8:
          append_bytes(source, scale + head * head_dim, reinterpret_cast<std::int8_t*>(target), head_dim);
          break;
      }
    }
  }
}

}  // namespace
}  // namespace sabiyarn
