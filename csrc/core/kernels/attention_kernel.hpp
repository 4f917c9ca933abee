// csrc/core/kernels/attention_kernel.hpp - the loops of attention.hpp around the arithmetic of one instruction set.
//
// Included once by each attention_<set>.cpp, behind its definitions of
//   SABIYARN_KERNEL              attributes of every function here: the instruction set, where it is not the baseline
//   Eight                        eight floats, with + - * and exp_in_place<Fused> of several
//   broadcast8(value)            eight times the same
//   multiply_add(a, b, c)        a * b + c, rounded once where the CPU can
//   maximum(a, b)                of each lane
//   Fused                        both, for exp_in_place
//   load8(source)                eight values, float32, float16 or int8, as float32; store8(value, target)
//   KeyPairs, load_pairs(first, second)
//                                what two dimensions hold of 16 keys in int8
//   ScoreSums                    16 int32, zeros at first; add_products(sums, pairs, two): adds the products with
//                                two int16, which `two` holds; store_sums(sums, unit, target): times unit, as floats
// and, where registers hold sixteen floats, of
//   SABIYARN_SIXTEEN, Sixteen    with broadcast16, multiply_add, load16 and store16
// All of it has internal linkage: the linker must never take a copy that was made for another instruction
// set.
//
// Scores are never kept for the whole past: slots come in tiles, and what was summed so far is rescaled
// whenever a tile brings a larger score (Milakov and Gimelshein, "Online normalizer calculation for softmax",
// 2018).
//
// Slots that nobody wrote are never read: a NaN of an earlier text would survive a weight of 0. The row's own
// slots between visible ones may be, with a weight of 0.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "core/kernels/attention.hpp"
#include "core/kernels/attention_visibility.hpp"
#include "core/simd/exact_math.hpp"
#include "core/simd/half.hpp"
#include "core/simd/lanes.hpp"

namespace sabiyarn {
namespace {

// Unpacking a tile to float32 first pays from so many queries on.
constexpr std::int64_t kUnpackedQueries = 16;
constexpr std::int64_t kRowsAtOnce = 6;    // of a product: with two vectors of columns it fills 16 registers
constexpr std::int64_t kWideColumns = 64;  // of a product with one row
constexpr int kExpsAtOnce = 2;             // vectors of weights: more do not fit into 16 registers
constexpr float kHidden = -std::numeric_limits<float>::infinity();
// Values that a single query asks for ahead of what it multiplies: 2 KB, about the time that memory takes to
// answer.
template <typename Value>
constexpr std::int64_t kPrefetched = 2048 / sizeof(Value);

// Added to a number of up to 22 bits, it leaves none for a fraction: the integer is in the lowest ones.
constexpr float kToInteger = 12582912.0f;  // 1.5 * 2^23
constexpr std::int32_t integer_of(float shifted) noexcept {
  return std::bit_cast<std::int32_t>(shifted) - std::bit_cast<std::int32_t>(kToInteger);
}

// A vector type with its functions, which are called after its number of floats.
#define SABIYARN_LANES(name, type, count)                                                                    \
  struct name {                                                                                              \
    using Vector = type;                                                                                     \
    static constexpr std::int64_t kCount = count;                                                            \
    SABIYARN_KERNEL static inline Vector broadcast(float value) noexcept { return broadcast##count(value); } \
    template <typename Value>                                                                                \
    [[gnu::always_inline]] SABIYARN_KERNEL static inline Vector load(const Value* source) noexcept {         \
      return load##count(source);                                                                            \
    }                                                                                                        \
    SABIYARN_KERNEL static inline void store(const Vector& value, float* target) noexcept {                  \
      store##count(value, target);                                                                           \
    }                                                                                                        \
  }
SABIYARN_LANES(EightLanes, Eight, 8);
#if defined(SABIYARN_SIXTEEN)
SABIYARN_LANES(WideLanes, Sixteen, 16);
#else
using WideLanes = EightLanes;
#endif
#undef SABIYARN_LANES
constexpr std::int64_t kBlockColumns = 2 * WideLanes::kCount;  // of a product with several rows

// Where a column of a product's b begins: every 16 of them lie `pair` elements behind those before, 16 for
// values, a whole tile for keys.
constexpr std::int64_t place(std::int64_t column, std::int64_t pair) noexcept {
  return column / kKeyTile * pair + column % kKeyTile;
}

// out[r, c] = or += sum over k of a[r, k] * b[k, place(c)], for kRows rows and kVectors vectors of columns.
template <typename Lanes, int kRows, int kVectors, typename B>
[[gnu::always_inline]] SABIYARN_KERNEL inline void product(const float* a, std::int64_t a_stride, const B* b,
                                                           std::int64_t b_stride, std::int64_t pair,
                                                           float* out, std::int64_t out_stride,
                                                           std::int64_t depth, bool add) noexcept {
  using Vector = typename Lanes::Vector;
  constexpr std::int64_t lanes = Lanes::kCount;
  Vector sums[std::size_t{kRows}][std::size_t{kVectors}] = {};
  if (add) {
    SABIYARN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      SABIYARN_UNROLL
      for (int v = 0; v < kVectors; ++v) sums[r][v] = Lanes::load(out + r * out_stride + lanes * v);
    }
  }
  // What a single query multiplies next comes from memory.
  constexpr std::int64_t columns = lanes * kVectors;
  const bool woven = pair > kKeyTile;
  const B* next = b + (woven ? std::max(columns / kKeyTile * pair, kPrefetched<B>) : kPrefetched<B>);
  const std::int64_t next_stride = woven ? columns : b_stride;
  for (std::int64_t k = 0; k < depth; ++k, b += b_stride) {
    if constexpr (kRows == 1) {
      SABIYARN_UNROLL
      for (std::size_t line = 0; line < columns * sizeof(B); line += 64) {
        __builtin_prefetch(reinterpret_cast<const std::byte*>(next) + line);
      }
      next += next_stride;
      // One after the other, so that the registers suffice for eight sums.
      const Vector factor = Lanes::broadcast(a[k]);
      SABIYARN_UNROLL
      for (int v = 0; v < kVectors; ++v) {
        sums[0][v] = multiply_add(factor, Lanes::load(b + place(lanes * v, pair)), sums[0][v]);
      }
      continue;
    }
    Vector column[std::size_t{kVectors}];
    SABIYARN_UNROLL
    for (int v = 0; v < kVectors; ++v) column[v] = Lanes::load(b + place(lanes * v, pair));
    SABIYARN_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Vector factor = Lanes::broadcast(a[r * a_stride + k]);
      SABIYARN_UNROLL
      for (int v = 0; v < kVectors; ++v) sums[r][v] = multiply_add(factor, column[v], sums[r][v]);
    }
  }
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    SABIYARN_UNROLL
    for (int v = 0; v < kVectors; ++v) Lanes::store(sums[r][v], out + r * out_stride + lanes * v);
  }
}

// Functions of their own, so that all sums stay in registers; no templates, which GCC does not put into the
// section of SABIYARN_KERNEL.
#define SABIYARN_PRODUCT(name, Lanes, kRows, kVectors, B)                                          \
  [[gnu::noinline]] SABIYARN_KERNEL void name(                                                     \
      const float* a, std::int64_t a_stride, const B* b, std::int64_t b_stride, std::int64_t pair, \
      float* out, std::int64_t out_stride, std::int64_t depth, bool add) noexcept {                \
    product<Lanes, kRows, kVectors>(a, a_stride, b, b_stride, pair, out, out_stride, depth, add);  \
  }
#define SABIYARN_PRODUCTS(B)                            \
  SABIYARN_PRODUCT(product_1, WideLanes, 1, 2, B)       \
  SABIYARN_PRODUCT(product_2, WideLanes, 2, 2, B)       \
  SABIYARN_PRODUCT(product_3, WideLanes, 3, 2, B)       \
  SABIYARN_PRODUCT(product_4, WideLanes, 4, 2, B)       \
  SABIYARN_PRODUCT(product_5, WideLanes, 5, 2, B)       \
  SABIYARN_PRODUCT(product_6, WideLanes, 6, 2, B)       \
  SABIYARN_PRODUCT(single_product, WideLanes, 1, 1, B)  \
  SABIYARN_PRODUCT(narrow_product, EightLanes, 1, 1, B) \
  SABIYARN_PRODUCT(wide_product, WideLanes, 1, kWideColumns / WideLanes::kCount, B)
SABIYARN_PRODUCTS(half_bits)
SABIYARN_PRODUCTS(float)
SABIYARN_PRODUCTS(std::int8_t)
#undef SABIYARN_PRODUCTS
#undef SABIYARN_PRODUCT

template <typename B>
using Product = void (*)(const float*, std::int64_t, const B*, std::int64_t, std::int64_t, float*,
                         std::int64_t, std::int64_t, bool) noexcept;
template <typename B>
constexpr Product<B> kProducts[kRowsAtOnce + 1] = {nullptr,   product_1, product_2, product_3,
                                                   product_4, product_5, product_6};

// Columns that are too few for a block, row by row: a multiple of 8.
template <typename B>
[[gnu::always_inline]] SABIYARN_KERNEL inline void product_rest(std::int64_t rows, std::int64_t columns,
                                                                const float* a, std::int64_t a_stride,
                                                                const B* b, std::int64_t b_stride,
                                                                std::int64_t pair, float* out,
                                                                std::int64_t out_stride, std::int64_t depth,
                                                                bool add) noexcept {
  for (; rows > 0; --rows, a += a_stride, out += out_stride) {
    std::int64_t c = 0;
    if (columns >= WideLanes::kCount) {
      single_product(a, a_stride, b, b_stride, pair, out, out_stride, depth, add);
      c = WideLanes::kCount;
    }
    if (c < columns) {
      narrow_product(a, a_stride, b + place(c, pair), b_stride, pair, out + c, out_stride, depth, add);
    }
  }
}

// Columns are a multiple of 8, and nearly always of 16.
template <typename B>
[[gnu::always_inline]] SABIYARN_KERNEL inline void product_all(std::int64_t rows, std::int64_t columns,
                                                               const float* a, std::int64_t a_stride,
                                                               const B* b, std::int64_t b_stride,
                                                               std::int64_t pair, float* out,
                                                               std::int64_t out_stride, std::int64_t depth,
                                                               bool add) noexcept {
  constexpr std::int64_t wide_pairs = kWideColumns / kKeyTile, block_pairs = kBlockColumns / kKeyTile;
  if (rows == 1) {
    std::int64_t c = 0;
    for (; c + kWideColumns <= columns; c += kWideColumns, b += wide_pairs * pair) {
      wide_product(a, a_stride, b, b_stride, pair, out + c, out_stride, depth, add);
    }
    for (; c + kBlockColumns <= columns; c += kBlockColumns, b += block_pairs * pair) {
      product_1(a, a_stride, b, b_stride, pair, out + c, out_stride, depth, add);
    }
    product_rest(1, columns - c, a, a_stride, b, b_stride, pair, out + c, out_stride, depth, add);
    return;
  }
  // Blocks of nearly the same size: the smaller a block, the more it waits for its own sums.
  std::int64_t blocks = (rows + kRowsAtOnce - 1) / kRowsAtOnce;
  for (std::int64_t count; rows > 0;
       rows -= count, --blocks, a += count * a_stride, out += count * out_stride) {
    count = (rows + blocks - 1) / blocks;
    const B* from = b;
    std::int64_t c = 0;
    for (; c + kBlockColumns <= columns; c += kBlockColumns, from += block_pairs * pair) {
      kProducts<B>[count](a, a_stride, from, b_stride, pair, out + c, out_stride, depth, add);
    }
    product_rest(count, columns - c, a, a_stride, from, b_stride, pair, out + c, out_stride, depth, add);
  }
}

// Scores of kTiles tiles of 8-bit keys: integers, which have the same sum in any order, times a query's unit.
template <int kRows, int kTiles>
[[gnu::always_inline]] SABIYARN_KERNEL inline void score_bytes(const std::int16_t* codes, const float* units,
                                                               const std::int8_t* keys, float* scores,
                                                               std::int64_t head_dim) noexcept {
  ScoreSums sums[std::size_t{kRows}][std::size_t{kTiles}] = {};
  const std::int64_t tile = kKeyTile * head_dim;
  const std::int8_t* next = keys + kTiles * tile;
  for (std::int64_t d = 0; d < head_dim; d += 2, keys += 2 * kKeyTile) {
    if constexpr (kRows == 1) {
      SABIYARN_UNROLL
      for (int line = 0; line < 2 * kTiles * kKeyTile; line += 64) __builtin_prefetch(next + line);
      next += 2 * kTiles * kKeyTile;
    }
    SABIYARN_UNROLL
    for (int t = 0; t < kTiles; ++t) {
      const KeyPairs pairs = load_pairs(keys + t * tile, keys + t * tile + kKeyTile);
      SABIYARN_UNROLL
      for (int r = 0; r < kRows; ++r) {
        std::int32_t two;
        std::memcpy(&two, codes + r * head_dim + d, sizeof two);
        add_products(sums[r][t], pairs, two);
      }
    }
  }
  SABIYARN_UNROLL
  for (int r = 0; r < kRows; ++r) {
    SABIYARN_UNROLL
    for (int t = 0; t < kTiles; ++t) store_sums(sums[r][t], units[r], scores + r * kSlotTile + t * kKeyTile);
  }
}

#define SABIYARN_SCORES(name, kRows, kTiles)                                                 \
  [[gnu::noinline]] SABIYARN_KERNEL void name(const std::int16_t* codes, const float* units, \
                                              const std::int8_t* keys, float* scores,        \
                                              std::int64_t head_dim) noexcept {              \
    score_bytes<kRows, kTiles>(codes, units, keys, scores, head_dim);                        \
  }
SABIYARN_SCORES(scores_1, 1, 1)
SABIYARN_SCORES(scores_2, 2, 1)
SABIYARN_SCORES(scores_3, 3, 1)
SABIYARN_SCORES(scores_4, 4, 1)
SABIYARN_SCORES(scores_5, 5, 1)
SABIYARN_SCORES(scores_6, 6, 1)
SABIYARN_SCORES(wide_scores, 1, kSlotTile / kKeyTile)
#undef SABIYARN_SCORES
constexpr void (*kScores[kRowsAtOnce + 1])(const std::int16_t*, const float*, const std::int8_t*, float*,
                                           std::int64_t) noexcept = {nullptr,  scores_1, scores_2, scores_3,
                                                                     scores_4, scores_5, scores_6};

// A token of a group, and its place in its segment.
struct GroupToken {
  const AttentionSegment* segment;
  std::int64_t index;

  std::int64_t position() const noexcept { return segment->total - segment->num_tokens + index; }
  void advance() noexcept {
    if (++index < segment->num_tokens) return;
    ++segment;
    index = 0;
  }
};

inline GroupToken first_of(const AttentionInput& input, const AttentionQueries& group) noexcept {
  return {input.segments.data() + group.segment, group.first};
}

// The queries of one call of attend().
struct Attending {
  float* queries;       // [kAttentionQueries, head_dim]: scaled
  float* accumulators;  // [kAttentionQueries, head_dim]
  float* scores;        // [kAttentionQueries, kSlotTile], then weights
  float* unpacked;      // [2, kSlotTile, head_dim]
  std::int16_t* codes;  // [kAttentionQueries, head_dim]: of an int8 cache, queries in units[i]
  float units[kAttentionQueries];
  SlotRuns visible[kAttentionQueries];
  const float* masks[kAttentionQueries];  // by position, or null
  std::int64_t rows[kAttentionQueries];   // where the head's slots of the query's row begin, in values
  std::int64_t slots[kAttentionQueries];  // that the row has
  std::int64_t
      shared[kAttentionQueries];  // leading slots, in whole tiles, that hold what the query before sees
  std::int64_t attended[kAttentionQueries];  // slots that are done
  float largest[kAttentionQueries];
  float sums[kAttentionQueries][8];       // of weights, of every eighth slot
  bool seen[kAttentionQueries];           // does the query see anything?
  std::uint64_t bits[kAttentionQueries];  // what it sees of this tile, before the mask
  std::int64_t common_first, common_end;  // slots that all queries see, without masks
  const std::byte* next[2];     // keys and values of the next tile, if many queries see this one, of
  std::int64_t next_bytes = 0;  // so many bytes each
};

// Scores of a tile as the query sees them: hidden ones become -infinity, a mask is added. False if all are
// hidden.
SABIYARN_KERNEL inline bool hide(const SlotRuns& visible, const float* mask, std::int64_t tile,
                                 float* scores) noexcept {
  std::int64_t done = 0;
  bool any = false;
  for (const SlotRun& run : visible) {
    const std::int64_t first = std::max(run.first - tile, done), end = std::min(run.end - tile, kSlotTile);
    if (first >= end) continue;
    std::fill(scores + done, scores + first, kHidden);
    done = end;
    if (mask == nullptr) {
      any = true;
      continue;
    }
    const float* added = mask + tile + run.offset;
    for (std::int64_t t = first; t < end; ++t) {
      scores[t] = added[t] == kHidden ? kHidden : scores[t] + added[t];
      any |= added[t] != kHidden;
    }
  }
  std::fill(scores + done, scores + kSlotTile, kHidden);
  return any;
}

SABIYARN_KERNEL inline float largest_lane(Eight value) noexcept {
  float lanes[8];
  store8(value, lanes);
  const Floats four = sabiyarn::maximum(load(lanes), load(lanes + kLanes));
  const float a = four[0] > four[1] ? four[0] : four[1], b = four[2] > four[3] ? four[2] : four[3];
  return a > b ? a : b;
}

// The online softmax update has two steps. First each row takes a tile's maximum, and rescales its sums of weights and
// its accumulator if that is larger. Then all rows turn their scores into weights: these do not wait for each other.
[[gnu::noinline]] SABIYARN_KERNEL void update_maximum(const float* scores, float& largest, float* sums,
                                                      float* accumulators, std::int64_t head_dim) noexcept {
  Eight top = broadcast8(kHidden);
  SABIYARN_UNROLL
  for (std::int64_t t = 0; t < kSlotTile; t += 8) top = maximum(load8(scores + t), top);
  const float tile_largest = largest_lane(top);
  if (!(tile_largest > largest)) return;
  if (largest != kHidden) {
    const Eight rescale = broadcast8(exp_float(largest - tile_largest));
    store8(load8(sums) * rescale, sums);
    for (std::int64_t d = 0; d < head_dim; d += 8) {
      store8(load8(accumulators + d) * rescale, accumulators + d);
    }
  }
  largest = tile_largest;
}

// Replaces the scores by their weights, and adds these to the sums.
[[gnu::noinline]] SABIYARN_KERNEL void softmax_weights(std::int64_t rows, float* scores, const float* largest,
                                                       float (*sums)[8]) noexcept {
  for (std::int64_t i = 0; i < rows; ++i, scores += kSlotTile) {
    const Eight most = broadcast8(largest[i]);
    Eight sum = load8(sums[i]);
    for (std::int64_t t = 0; t < kSlotTile; t += 8 * kExpsAtOnce) {
      Eight weights[kExpsAtOnce];
      SABIYARN_UNROLL
      for (int v = 0; v < kExpsAtOnce; ++v) weights[v] = load8(scores + t + 8 * v) - most;
      exp_in_place<Fused>(weights);
      SABIYARN_UNROLL
      for (int v = 0; v < kExpsAtOnce; ++v) {
        store8(weights[v], scores + t + 8 * v);
        sum = sum + weights[v];
      }
    }
    store8(sum, sums[i]);
  }
}

constexpr std::int64_t tiles_end(std::int64_t slots) noexcept {
  return (slots + kKeyTile - 1) / kKeyTile * kKeyTile;
}

// Scores of `count` queries from `first` on with the slots low ... end - 1 of a tile, whole tiles of keys.
template <typename Key>
[[gnu::always_inline]] SABIYARN_KERNEL inline void score_tile(const Attending& at, const Key* keys,
                                                              std::int64_t low, std::int64_t end,
                                                              std::int64_t first, std::int64_t count,
                                                              std::int64_t head_dim) noexcept {
  float* scores = at.scores + first * kSlotTile + low;
  const Key* from = keys + low * head_dim;
  if constexpr (sizeof(Key) > 1) {
    product_all(count, end - low, at.queries + first * head_dim, head_dim, from, kKeyTile,
                kKeyTile * head_dim, scores, kSlotTile, head_dim, false);
  } else {
    const std::int16_t* codes = at.codes + first * head_dim;
    const float* units = at.units + first;
    if (count == 1 && end - low == kSlotTile) {
      wide_scores(codes, units, from, scores, head_dim);
      return;
    }
    std::int64_t blocks = (count + kRowsAtOnce - 1) / kRowsAtOnce;
    for (std::int64_t rows; count > 0;
         count -= rows, --blocks, codes += rows * head_dim, units += rows, scores += rows * kSlotTile) {
      rows = (count + blocks - 1) / blocks;
      for (std::int64_t t = 0; t < end - low; t += kKeyTile) {
        kScores[rows](codes, units, from + t * head_dim, scores + t, head_dim);
      }
    }
  }
}

// One tile of keys and values, of which the slots begin ... end - 1 (of the tile) are seen by the queries
// first ... last.
template <typename Key, typename B>
[[gnu::always_inline]] SABIYARN_KERNEL inline void attend_tile(Attending& at, const Key* keys,
                                                               const B* values, std::int64_t tile,
                                                               std::int64_t begin, std::int64_t end,
                                                               std::int64_t first, std::int64_t last,
                                                               bool all, std::int64_t head_dim) noexcept {
  const std::int64_t count = last - first + 1;
  float* scores = at.scores + first * kSlotTile;
  score_tile(at, keys, begin / kKeyTile * kKeyTile, tiles_end(end), first, count, head_dim);
  const std::int64_t part = (at.next_bytes / count + 63) / 64 * 64;
  for (std::int64_t i = first; i <= last; ++i) {
    const std::int64_t from = (i - first) * part, to = std::min(from + part, at.next_bytes);
    for (std::int64_t line = from; line < to; line += 64) {
      for (const std::byte* side : at.next) __builtin_prefetch(side + line, 0, 2);
    }
    float* row = at.scores + i * kSlotTile;
    const bool hides = !all && (at.masks[i] != nullptr || at.bits[i] != ~std::uint64_t{0});
    if (hides && !hide(at.visible[i], at.masks[i], tile, row)) continue;  // weights of 0
    at.seen[i] = true;
    update_maximum(row, at.largest[i], at.sums[i], at.accumulators + i * head_dim, head_dim);
  }
  softmax_weights(count, scores, at.largest + first, at.sums + first);
  product_all(count, head_dim, scores + begin, kSlotTile, values + begin * head_dim, head_dim, kKeyTile,
              at.accumulators + first * head_dim, head_dim, end - begin, true);
}

template <typename Value>
[[gnu::always_inline]] SABIYARN_KERNEL inline void unpack(const Value* source, std::int64_t count,
                                                          float* target) noexcept {
  for (std::int64_t i = 0; i < count; i += 8) store8(load8(source + i), target + i);
}

// The slots tile ... tile + kSlotTile - 1 of the queries first ... last, which hold the same for all of them.
template <typename Value>
[[gnu::always_inline]] SABIYARN_KERNEL inline void attend_slots(Attending& at, const Value* keys,
                                                                const Value* values, std::int64_t tile,
                                                                std::int64_t first, std::int64_t last,
                                                                std::int64_t head_dim) noexcept {
  const std::int64_t row = at.rows[first];
  const bool all = at.common_first <= tile && tile + kSlotTile <= at.common_end;
  std::int64_t begin = 0, end = kSlotTile;
  if (!all) {
    std::uint64_t bits = 0;
    std::int64_t first_seeing = last + 1, last_seeing = first;
    for (std::int64_t i = first; i <= last; ++i) {
      at.bits[i] = visible_bits(at.visible[i], tile);
      if (at.bits[i] == 0) continue;
      bits |= at.bits[i];
      first_seeing = std::min(first_seeing, i);
      last_seeing = i;
    }
    if (bits == 0) return;
    begin = std::countr_zero(bits);
    end = kSlotTile - std::countl_zero(bits);
    first = first_seeing;
    last = last_seeing;
  }
  const std::int64_t offset = row + tile * head_dim;
  const Value *tile_keys = keys + offset, *tile_values = values + offset;
  if constexpr (sizeof(Value) < sizeof(float)) {
    if (last - first + 1 >= kUnpackedQueries) {
      float* unpacked_values = at.unpacked + kSlotTile * head_dim;
      at.next[0] = reinterpret_cast<const std::byte*>(tile_keys + kSlotTile * head_dim);
      at.next[1] = reinterpret_cast<const std::byte*>(tile_values + kSlotTile * head_dim);
      at.next_bytes = kSlotTile * head_dim * static_cast<std::int64_t>(sizeof(Value));
      unpack(tile_values + begin * head_dim, (end - begin) * head_dim, unpacked_values + begin * head_dim);
      const float* const floats = unpacked_values;
      if constexpr (sizeof(Value) == 1) {
        attend_tile(at, tile_keys, floats, tile, begin, end, first, last, all, head_dim);
      } else {
        const std::int64_t low = begin / kKeyTile * kKeyTile * head_dim, high = tiles_end(end) * head_dim;
        unpack(tile_keys + low, high - low, at.unpacked + low);
        attend_tile(at, static_cast<const float*>(at.unpacked), floats, tile, begin, end, first, last, all,
                    head_dim);
      }
      return;
    }
  }
  attend_tile(at, tile_keys, tile_values, tile, begin, end, first, last, all, head_dim);
}

// A query as integers, as attention.hpp defines them. Returns its unit.
SABIYARN_KERNEL inline float round_query(const float* query, std::int64_t head_dim,
                                         std::int16_t* codes) noexcept {
  Eight largest = broadcast8(0.0f), poison = broadcast8(0.0f);
  for (std::int64_t d = 0; d < head_dim; d += 8) {
    const Eight value = load8(query + d);
    largest = maximum(maximum(value, broadcast8(0.0f) - value), largest);
    poison = poison + value * broadcast8(0.0f);  // NaN of what is no finite number
  }
  const float most = largest_lane(largest);
  const bool any = most > kSmallestQuery;
  float lanes[8], unit = any ? most / largest_code(head_dim) : 0.0f;
  store8(poison, lanes);
  for (const float lane : lanes) unit += lane;
  if (std::isnan(unit)) {
    std::fill(codes, codes + head_dim, std::int16_t{0});
    return unit;
  }
  const float codes_per_one = any ? largest_code(head_dim) / most : 0.0f;
  for (std::int64_t d = 0; d < head_dim; d += 8) {
    float shifted[8];
    store8(load8(query + d) * broadcast8(codes_per_one) + broadcast8(kToInteger), shifted);
    for (std::int64_t lane = 0; lane < 8; ++lane) {
      codes[d + lane] = static_cast<std::int16_t>(integer_of(shifted[lane]));
    }
  }
  return unit;
}

template <typename Value>
[[gnu::always_inline]] SABIYARN_KERNEL inline void attend_as(const AttentionInput& input,
                                                             const AttentionQueries& group, std::int64_t head,
                                                             float* scratch) noexcept {
  const auto [rows, heads, head_dim, capacity] = input.shape;
  const std::int64_t width = heads * head_dim, count = group.end - group.first;
  const std::int64_t token = group.first_token + group.first;
  const auto* keys = reinterpret_cast<const Value*>(input.keys);
  const auto* values = reinterpret_cast<const Value*>(input.values);

  Attending at;
  at.queries = scratch;
  at.accumulators = at.queries + kAttentionQueries * head_dim;
  at.scores = at.accumulators + kAttentionQueries * head_dim;
  at.unpacked = at.scores + kAttentionQueries * kSlotTile;
  at.codes = reinterpret_cast<std::int16_t*>(at.unpacked);  // where other caches unpack their keys
  const float scale = 1.0f / std::sqrt(static_cast<float>(head_dim));
  at.common_first = 0;
  at.common_end = capacity;
  GroupToken current = first_of(input, group);
  for (std::int64_t i = 0; i < count; ++i, current.advance()) {
    const float* query = input.qkv + (token + i) * 3 * width + head * head_dim;
    for (std::int64_t d = 0; d < head_dim; d += 8) {
      Eight value = load8(query + d) * broadcast8(scale);
      if constexpr (sizeof(Value) == 1) value = value * load8(input.key_scale + head * head_dim + d);
      store8(value, at.queries + i * head_dim + d);
    }
    if constexpr (sizeof(Value) == 1) {
      at.units[i] = round_query(at.queries + i * head_dim, head_dim, at.codes + i * head_dim);
    }
    const AttentionSegment& segment = *current.segment;
    at.visible[i] = visible_slots(segment, current.position(), input.window, input.num_sinks, capacity);
    at.masks[i] =
        segment.causal() ? nullptr : input.mask.data() + segment.mask_at + current.index * segment.total;
    const SlotRun& longest = *std::max_element(
        at.visible[i].begin(), at.visible[i].end(),
        [](const SlotRun& a, const SlotRun& b) { return a.end - a.first < b.end - b.first; });
    at.common_first = std::max(at.common_first, longest.first);
    at.common_end = std::min(at.common_end, segment.causal() ? longest.end : 0);
    at.rows[i] = (segment.row * heads + head) * capacity * head_dim;
    at.slots[i] = std::min(segment.total, capacity);
    at.shared[i] = current.index > 0 ? capacity : segment.shared() / kSlotTile * kSlotTile;
    at.attended[i] = 0;
    at.largest[i] = kHidden;
    std::fill_n(at.sums[i], 8, 0.0f);
    at.seen[i] = false;
  }
  std::fill(at.accumulators, at.accumulators + count * head_dim, 0.0f);

  // Queries go together as far as each sees the same as the one before it, then apart.
  for (std::int64_t first = 0; first < count;) {
    std::int64_t tile = at.attended[first], last = first, end = at.slots[first];
    for (; last + 1 < count && at.shared[last + 1] > tile; ++last) end = std::min(end, at.shared[last + 1]);
    for (; tile < end; tile += kSlotTile) attend_slots(at, keys, values, tile, first, last, head_dim);
    std::fill(at.attended + first, at.attended + last + 1, tile);
    while (first < count && at.attended[first] >= at.slots[first]) ++first;
  }

  for (std::int64_t i = 0; i < count; ++i) {
    float* out = input.out + (token + i) * width + head * head_dim;
    float sum = 0.0f;
    for (const float lane : at.sums[i]) sum += lane;
    const float share = at.seen[i] ? 1.0f / sum : 0.0f;
    for (std::int64_t d = 0; d < head_dim; d += 8) {
      Eight value = load8(at.accumulators + i * head_dim + d) * broadcast8(share);
      if constexpr (sizeof(Value) == 1) value = value * load8(input.value_scale + head * head_dim + d);
      // A product that underflowed to -0 becomes 0, whether or not hidden slots were added to it.
      store8(value + broadcast8(0.0f), out + d);
    }
  }
}

#define SABIYARN_ATTEND(name, Value)                                                                      \
  [[gnu::noinline]] SABIYARN_KERNEL void name(const AttentionInput& input, const AttentionQueries& group, \
                                              std::int64_t head, float* scratch) noexcept {               \
    attend_as<Value>(input, group, head, scratch);                                                        \
  }
SABIYARN_ATTEND(attend_halves, half_bits)
SABIYARN_ATTEND(attend_floats, float)
SABIYARN_ATTEND(attend_bytes, std::int8_t)
#undef SABIYARN_ATTEND

SABIYARN_KERNEL inline void attend(const AttentionInput& input, const AttentionQueries& group,
                                   std::int64_t head, float* scratch) noexcept {
  switch (input.dtype) {
    case KvDtype::kFloat16:
      attend_halves(input, group, head, scratch);
      break;
    case KvDtype::kFloat32:
      attend_floats(input, group, head, scratch);
      break;
    case KvDtype::kInt8:
      attend_bytes(input, group, head, scratch);
      break;
  }
}

// New keys and values as the cache stores them.
SABIYARN_KERNEL inline void store_rounded(const float* source, const float*, half_bits* target,
                                          std::int64_t count) noexcept {
  float_to_half(source, target, static_cast<std::size_t>(count));
}

SABIYARN_KERNEL inline void store_rounded(const float* source, const float*, float* target,
                                          std::int64_t count) noexcept {
  std::copy(source, source + count, target);
}

// As onnxruntime's QuantizeLinear: to the nearest integer number of units, even on ties, clipped to 8 bits.
SABIYARN_KERNEL inline void store_rounded(const float* source, const float* scale, std::int8_t* target,
                                          std::int64_t count) noexcept {
  for (std::int64_t d = 0; d < count; ++d) {
    const float units = source[d] * (1.0f / scale[d]);
    const float clipped = units < -128.0f ? -128.0f : units > 127.0f ? 127.0f : units;
    target[d] = static_cast<std::int8_t>(integer_of(clipped + kToInteger));
  }
}

constexpr bool is_finite(half_bits value) noexcept { return (value & 0x7c00) != 0x7c00; }
inline bool is_finite(float value) noexcept { return std::isfinite(value); }
constexpr half_bits not_a_number(half_bits) noexcept { return 0x7e00; }
constexpr float not_a_number(float) noexcept { return std::numeric_limits<float>::quiet_NaN(); }

template <typename Value>
[[gnu::always_inline]] SABIYARN_KERNEL inline void append_as(const AttentionInput& input,
                                                             const AttentionQueries& group,
                                                             std::int64_t head) noexcept {
  const auto [rows, heads, head_dim, capacity] = input.shape;
  const std::int64_t width = heads * head_dim;
  const bool scaled = sizeof(Value) == 1;
  const float* key_scale = scaled ? input.key_scale + head * head_dim : nullptr;
  const float* value_scale = scaled ? input.value_scale + head * head_dim : nullptr;
  GroupToken current = first_of(input, group);
  for (std::int64_t i = group.first; i < group.end; ++i, current.advance()) {
    const std::int64_t offset = (current.segment->row * heads + head) * capacity * head_dim;
    const std::int64_t slot = ring_slot(current.position(), input.num_sinks, capacity);
    const float* source = input.qkv + (group.first_token + i) * 3 * width + width + head * head_dim;
    Value* keys = reinterpret_cast<Value*>(input.keys) + offset;
    Value* values = reinterpret_cast<Value*>(input.values) + offset;
    Value* key = keys + slot / kKeyTile * kKeyTile * head_dim + slot % kKeyTile;
    Value* value = values + slot * head_dim;
    store_rounded(source + width, value_scale, value, head_dim);
    [[maybe_unused]] bool fits = true;
    for (std::int64_t d = 0; d < head_dim; d += 8) {
      Value rounded[8];
      store_rounded(source + d, scaled ? key_scale + d : nullptr, rounded, 8);
      for (std::int64_t lane = 0; lane < 8; ++lane) {
        key[(d + lane) * kKeyTile] = rounded[lane];
        if constexpr (sizeof(Value) > 1)
          fits = fits && is_finite(rounded[lane]) && is_finite(value[d + lane]);
      }
    }
    // An infinite key would get no weight, or all of it, without a word: whoever sees the token gets NaN.
    if constexpr (sizeof(Value) > 1) {
      if (!fits) std::fill(value, value + head_dim, not_a_number(Value{}));
    }
  }
}

SABIYARN_KERNEL inline void append(const AttentionInput& input, const AttentionQueries& group,
                                   std::int64_t head) noexcept {
  switch (input.dtype) {
    case KvDtype::kFloat16:
      append_as<half_bits>(input, group, head);
      break;
    case KvDtype::kFloat32:
      append_as<float>(input, group, head);
      break;
    case KvDtype::kInt8:
      append_as<std::int8_t>(input, group, head);
      break;
  }
}

}  // namespace
}  // namespace sabiyarn
