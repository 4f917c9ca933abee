#include "core/kernels/attention.hpp"

#include <array>
#include <limits>
#include <stdexcept>
#include <string>

#include "core/kernels/attention_sets.hpp"
#include "core/simd/instruction_sets.hpp"

namespace sabiyarn {

namespace {

// Far from overflow when multiplied with each other.
constexpr std::int64_t kMostPositions = std::numeric_limits<std::int32_t>::max();

[[noreturn]] void refuse(std::size_t segment, const char* field, std::int64_t value,
                         const std::string& allowed) {
  throw std::invalid_argument("segments: " + std::string(field) + " of segment " + std::to_string(segment) +
                              " is " + std::to_string(value) + "; it must be " + allowed);
}

std::string range(std::int64_t least, std::int64_t most) {
  return std::to_string(least) + " to " + std::to_string(most);
}

}  // namespace

std::size_t attention_scratch(std::int64_t head_dim) noexcept {
  return static_cast<std::size_t>((2 * kAttentionQueries + 2 * kSlotTile) * head_dim +
                                  kAttentionQueries * kSlotTile);
}

std::span<const AttentionKernels* const> attention_kernels() noexcept {
#if defined(__x86_64__)
  static constexpr std::array<const AttentionKernels*, 3> all = {&kAttentionAvx512, &kAttentionAvx2,
                                                                 &kAttentionPlain};
  static const std::size_t skipped = !has_avx2_f16c_fma() ? 2 : has_avx512_vnni() ? 0 : 1;
  return std::span(all).subspan(skipped);
#else
  static constexpr std::array<const AttentionKernels*, 1> all = {&kAttentionPlain};
  return all;
#endif
}

void check_attention(const AttentionInput& input) {
  const auto [rows, heads, head_dim, capacity] = input.shape;
  if (head_dim < 8 || head_dim % 8 != 0) {
    throw std::invalid_argument("head_dim is " + std::to_string(head_dim) + "; it must be a multiple of 8");
  }
  if (capacity > kMostPositions) {
    throw std::invalid_argument("the cache has " + std::to_string(capacity) + " slots; at most " +
                                std::to_string(kMostPositions) + " are allowed");
  }
  const std::int64_t window = input.window, num_sinks = input.num_sinks;
  if (window < 2 || window > kMostPositions || num_sinks < 0 || num_sinks > window - 2) {
    throw std::invalid_argument("window is " + std::to_string(window) + " with " + std::to_string(num_sinks) +
                                " sinks; it must be " + range(2, kMostPositions) +
                                " with 0 to window - 2 sinks");
  }
  const auto mask_size = static_cast<std::int64_t>(input.mask.size());
  thread_local std::vector<std::int64_t> rows_seen;
  rows_seen.clear();
  std::int64_t tokens = 0, past_before = 0;
  for (std::size_t i = 0; i < input.segments.size(); ++i) {
    const AttentionSegment& segment = input.segments[i];
    if (segment.row < 0 || segment.row >= rows) refuse(i, "row", segment.row, range(0, rows - 1));
    rows_seen.push_back(segment.row);
    if (segment.num_tokens < 1 || segment.num_tokens > input.tokens - tokens) {
      refuse(i, "num_tokens", segment.num_tokens,
             "at least 1, and all together the run's " + std::to_string(input.tokens) + " tokens");
    }
    tokens += segment.num_tokens;
    if (segment.total < segment.num_tokens || segment.total > kMostPositions) {
      refuse(i, "total", segment.total,
             "num_tokens (" + std::to_string(segment.num_tokens) + ") to " + std::to_string(kMostPositions));
    }
    if (segment.oldest < 0 || segment.oldest > segment.total) {
      refuse(i, "oldest", segment.oldest, range(0, segment.total));
    }
    const std::int64_t past = segment.total - segment.num_tokens;
    const std::int64_t most = std::max(capacity - past, capacity - window + 1);
    if (segment.num_tokens > most) {
      refuse(i, "num_tokens", segment.num_tokens,
             "at most " + std::to_string(std::max<std::int64_t>(most, 0)) + " behind " +
                 std::to_string(past) + " tokens in a cache of " + std::to_string(capacity) +
                 " slots with a window of " + std::to_string(window));
    }
    if (segment.mask_at > mask_size) {
      refuse(i, "mask_at", segment.mask_at,
             "-1, or where its mask begins among the " + std::to_string(mask_size) +
                 " values of attention_mask");
    }
    if (!segment.causal() && segment.num_tokens * segment.total > mask_size - segment.mask_at) {
      refuse(i, "mask_at", segment.mask_at,
             "-1, or such that num_tokens x total = " + std::to_string(segment.num_tokens) + " x " +
                 std::to_string(segment.total) + " values follow among the " + std::to_string(mask_size) +
                 " of attention_mask");
    }
    const std::int64_t most_shared = i == 0 ? 0 : std::min({past, past_before, capacity});
    if (segment.shared() > most_shared) {
      refuse(i, "mask_at", segment.mask_at,
             "at least " + std::to_string(~most_shared) + ", as it can share at most " +
                 std::to_string(most_shared) + " slots with the segment before it");
    }
    past_before = past;
  }
  if (tokens != input.tokens) {
    throw std::invalid_argument("segments: their num_tokens are " + std::to_string(tokens) +
                                " together; the run has " + std::to_string(input.tokens) + " tokens");
  }
  std::sort(rows_seen.begin(), rows_seen.end());
  const auto twice = std::adjacent_find(rows_seen.begin(), rows_seen.end());
  if (twice != rows_seen.end()) {
    throw std::invalid_argument("segments: row " + std::to_string(*twice) +
                                " is there twice; a run takes each row at most once");
  }
}

void group_queries(const AttentionInput& input, std::vector<AttentionQueries>& groups) {
  groups.clear();
  std::int64_t first_token = 0;
  for (std::size_t i = 0; i < input.segments.size(); ++i) {
    const AttentionSegment& segment = input.segments[i];
    const std::int64_t count = segment.num_tokens;
    if (segment.shared() > 0 && 2 * segment.shared() >= std::min(segment.total, input.shape.capacity) &&
        groups.back().first == 0 && groups.back().end + count <= kAttentionQueries) {
      ++groups.back().num_segments;
      groups.back().end += count;
    } else {
      for (std::int64_t first = 0; first < count; first += kAttentionQueries) {
        groups.push_back({static_cast<std::int64_t>(i), 1, first_token, first,
                          std::min(first + kAttentionQueries, count)});
      }
    }
    first_token += count;
  }
  const auto work = [&](const AttentionQueries& queries) {
    const AttentionSegment& segment = input.segments[static_cast<std::size_t>(queries.segment)];
    const std::int64_t seen = segment.total - segment.num_tokens + queries.end;
    return std::min(seen, input.window) * (queries.end - queries.first);
  };
  std::sort(groups.begin(), groups.end(),
            [&](const AttentionQueries& a, const AttentionQueries& b) { return work(a) > work(b); });
}

}  // namespace sabiyarn
