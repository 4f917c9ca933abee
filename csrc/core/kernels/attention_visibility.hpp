// csrc/core/kernels/attention_visibility.hpp - which slots of a cache row a query sees.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "core/kernels/attention.hpp"

namespace sabiyarn {

// Slots first ... end - 1 hold the positions slot + offset.
struct SlotRun {
  std::int64_t first, end, offset;
};

// In ascending order: the sinks; the ring up to the newest position; the ring behind it, one round older.
using SlotRuns = std::array<SlotRun, 3>;

// Where the positions 0 ... total - 1 of a row stand, as far as the ring had no newer ones for their slots.
constexpr SlotRuns held_slots(std::int64_t total, std::int64_t num_sinks, std::int64_t capacity) noexcept {
  const std::int64_t sinks = std::min(num_sinks, total);
  if (total <= capacity) return {{{0, sinks, 0}, {sinks, total, 0}, {total, total, 0}}};
  const std::int64_t ring = capacity - num_sinks, rounds = (total - num_sinks) / ring;
  const std::int64_t next = num_sinks + (total - num_sinks) % ring;
  return {{{0, sinks, 0}, {sinks, next, rounds * ring}, {next, capacity, (rounds - 1) * ring}}};
}

// What the query at `position` of a segment sees of it.
constexpr SlotRuns visible_slots(const AttentionSegment& segment, std::int64_t position, std::int64_t window,
                                 std::int64_t num_sinks, std::int64_t capacity) noexcept {
  SlotRuns runs = held_slots(segment.total, num_sinks, capacity);
  const std::int64_t lowest = std::max(segment.oldest, position - (window - num_sinks) + 1);
  const std::int64_t end = segment.mask_at < 0 ? position + 1 : segment.total;  // a mask may look ahead
  for (std::size_t i = 0; i < runs.size(); ++i) {
    SlotRun& run = runs[i];
    if (i > 0) run.first = std::max(run.first, lowest - run.offset);
    run.end = std::max(run.first, std::min(run.end, end - run.offset));
  }
  return runs;
}

// The tile's visible slots: bit i is slot tile + i.
constexpr std::uint64_t visible_bits(const SlotRuns& runs, std::int64_t tile) noexcept {
  std::uint64_t bits = 0;
  for (const SlotRun& run : runs) {
    const std::int64_t first = std::max<std::int64_t>(run.first - tile, 0);
    const std::int64_t count = std::min(run.end - tile, kSlotTile) - first;
    if (count > 0) bits |= (~std::uint64_t{0} >> (kSlotTile - count)) << first;
  }
  return bits;
}

}  // namespace sabiyarn
