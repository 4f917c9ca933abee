// csrc/core/kernels/attention.hpp - attention of new tokens over keys and values that a cache holds.
//
// A run takes tokens of any mixture of cache rows, segment after segment. Their keys and values are rounded
// to the cache's type and written into it first, and then read like all others. A head's values are NaN where one of a
// token's keys or values is not finite there, as of numbers beyond 65504 in float16.
//
// With an int8 cache, queries become integers too, so that a score is an exact sum of integers, in any order: a query,
// times key_scale and 1 / sqrt(head_dim), has the unit max |q| / L and the codes round(q * (L / max |q|)), even on ties,
// with L = largest_code(head_dim); a score is float(sum of code * key) * unit. A query that has nothing above
// kSmallestQuery is 0. 15 bits change a score 100 times less than int8 keys do.
//
// The order of summation is fixed: one chain of multiply-adds per key over head_dim; online softmax over
// tiles of 64 slots from slot 0 on; one chain of multiply-adds per dimension over the slots. So a token's
// result has the same bits however the text is cut into runs and whatever else is in the run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "core/kv/kv_cache.hpp"

namespace sabiyarn {

struct AttentionShape {
  std::int64_t rows;
  std::int64_t heads;
  std::int64_t head_dim;  // a multiple of 8
  std::int64_t capacity;  // slots of a row, a multiple of kKeyTile
};

inline constexpr float kSmallestQuery = 1e-30f;
// So that head_dim products with -128 ... 127 fit into 32 bits.
constexpr float largest_code(std::int64_t head_dim) noexcept {
  const std::int64_t most = ((std::int64_t{1} << 31) - 1) / (128 * head_dim);
  return static_cast<float>(most < 16383 ? most : 16383);
}

// New tokens of one cache row, adjacent in the run. The fields lie as in a row of the operator's input
// `segments`.
struct AttentionSegment {
  std::int64_t row;         // at most once in a run
  std::int64_t num_tokens;  // at least 1
  std::int64_t total;       // tokens of the row after the run: the new ones have the last positions before it
  std::int64_t oldest;      // positions below it are evicted, but for the sinks
  // Where its mask begins: [num_tokens, total], over positions. Below 0: causal, and the first ~mask_at slots
  // hold the same as those of the segment before it, which are read once for both.
  std::int64_t mask_at;

  constexpr bool causal() const noexcept { return mask_at < 0; }
  constexpr std::int64_t shared() const noexcept { return causal() ? ~mask_at : 0; }
};
static_assert(sizeof(AttentionSegment) == 5 * sizeof(std::int64_t));

struct AttentionInput {
  AttentionShape shape;
  std::int64_t tokens;
  const float* qkv;   // [tokens, 3, heads, head_dim]
  std::byte* keys;    // as KvCache lays them out
  std::byte* values;  // as KvCache lays them out
  KvDtype dtype;
  std::span<const AttentionSegment> segments;
  std::int64_t window;                 // a token sees so many positions, itself included:
  std::int64_t num_sinks;              // the first ones and the newest others
  std::span<const float> mask = {};    // added to the scores; -infinity hides a position
  const float* key_scale = nullptr;    // [heads, head_dim], of an int8 cache
  const float* value_scale = nullptr;  // [heads, head_dim]
  float* out = nullptr;                // [tokens, heads, head_dim]; zeros for a token that sees nothing
};

// Tokens first ... end - 1 of a segment; or all tokens of several segments that begin alike.
struct AttentionQueries {
  std::int64_t segment;  // the first one
  std::int64_t num_segments;
  std::int64_t first_token;  // of that segment, in the run
  std::int64_t first;        // counted from first_token, as `end`
  std::int64_t end;
};

struct AttentionKernels {
  const char* name;
  // Writes the keys and values of these tokens, of one head.
  void (*append)(const AttentionInput& input, const AttentionQueries& queries, std::int64_t head) noexcept;
  // Attention of these tokens, at most kAttentionQueries, of one head. `scratch` has attention_scratch()
  // floats.
  void (*attend)(const AttentionInput& input, const AttentionQueries& queries, std::int64_t head,
                 float* scratch) noexcept;
};

// Tokens that one call of attend() takes at most: keys are unpacked once for all of them.
inline constexpr std::int64_t kAttentionQueries = 128;
std::size_t attention_scratch(std::int64_t head_dim) noexcept;

// Those that this CPU can run, the best first; the last one runs everywhere.
std::span<const AttentionKernels* const> attention_kernels() noexcept;

// Throws std::invalid_argument if a segment, the window or a mask does not fit the rest. The arrays are as
// large as `input` says; their numbers may be anything.
void check_attention(const AttentionInput& input);

// All queries in groups of at most kAttentionQueries, those that see the most keys first, so that no thread
// is left with them at the end. Segments come together where at least half of what they see is the same.
void group_queries(const AttentionInput& input, std::vector<AttentionQueries>& groups);

// Attention of all tokens of a checked input. parallel_for(count, task) calls task(i) for each i < count, in
// any order and on any threads. Head goes by head, so that groups of the same keys find them in a cache.
template <typename ParallelFor>
void compute_attention(const AttentionInput& input, const AttentionKernels& kernels,
                       const ParallelFor& parallel_for) {
  thread_local std::vector<AttentionQueries> kept;  // a decode step allocates nothing
  std::vector<AttentionQueries>& groups = kept;     // other threads must see this thread's
  group_queries(input, groups);
  const auto count = static_cast<std::int64_t>(groups.size());
  const auto for_each = [&](const auto& action) {
    parallel_for(count * input.shape.heads, [&](std::int64_t task) {
      action(groups[static_cast<std::size_t>(task % count)], task / count);
    });
  };
  const auto append = [&](const AttentionQueries& queries, std::int64_t head) {
    kernels.append(input, queries, head);
  };
  const auto attend = [&](const AttentionQueries& queries, std::int64_t head) {
    thread_local std::vector<float> scratch;
    scratch.resize(attention_scratch(input.shape.head_dim));
    kernels.attend(input, queries, head, scratch.data());
  };
  std::int64_t parts = 0;
  for (const AttentionQueries& queries : groups) parts += queries.num_segments;
  if (parts == static_cast<std::int64_t>(input.segments.size())) {  // nobody waits for another group's keys
    for_each([&](const AttentionQueries& queries, std::int64_t head) {
      append(queries, head);
      attend(queries, head);
    });
  } else {
    for_each(append);
    for_each(attend);
  }
}

}  // namespace sabiyarn
