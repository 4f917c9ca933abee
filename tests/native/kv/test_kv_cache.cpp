// Random schedules of appends, forks and truncations against rows that are kept as plain lists, with every
// value read back; and no memory from the heap once the cache is warm. Run under the sanitizers, this finds
// what a wrong address would touch.
#include <cstdint>
#include <map>
#include <vector>

#include "check.hpp"
#include "core/kv/kv_cache.hpp"
#include "core/selection/random.hpp"
#include "count_allocations.hpp"

using namespace sabiyarn;

namespace {

constexpr std::int64_t kLayers = 2, kHeads = 3, kHeadDim = 4;

// A row's held positions, each with the number that was written for it.
using Row = std::map<std::int64_t, std::uint16_t>;

template <typename Visit>
bool all_values(const KvCache& cache, std::int64_t row, std::int64_t slot, std::uint16_t number,
                const Visit& visit) {
  bool all = true;
  for (std::int64_t layer = 0; layer < kLayers; ++layer) {
    for (const bool value : {false, true}) {
      auto* buffer = reinterpret_cast<std::uint16_t*>(value ? cache.values(layer) : cache.keys(layer));
      for (std::int64_t head = 0; head < kHeads; ++head) {
        std::uint16_t* at = buffer + (row * kHeads + head) * cache.capacity() * kHeadDim;
        for (std::int64_t d = 0; d < kHeadDim; ++d) {
          const std::int64_t index =
              value ? slot * kHeadDim + d
                    : slot / kKeyTile * kKeyTile * kHeadDim + d * kKeyTile + slot % kKeyTile;
          const std::int64_t written = number + 7919 * (layer * 6 + (value ? 3 : 0) + head) + d;
          all = visit(at[index], static_cast<std::uint16_t>(written)) && all;
        }
      }
    }
  }
  return all;
}

// What the graph does: numbers that tell positions, layers, sides, heads and dimensions apart.
void write(const KvCache& cache, std::int64_t row, std::int64_t slot, std::uint16_t number) {
  all_values(cache, row, slot, number, [](std::uint16_t& at, std::uint16_t value) {
    at = value;
    return true;
  });
}

bool holds(const KvCache& cache, std::int64_t row, std::int64_t slot, std::uint16_t number) {
  return all_values(cache, row, slot, number,
                    [](std::uint16_t at, std::uint16_t value) { return at == value; });
}

void random_schedule(std::uint64_t seed) {
  std::uint32_t draws = 0;
  const auto draw = [&](std::int64_t below) {
    return static_cast<std::int64_t>(uniform(seed, 0, draws++) * static_cast<double>(below));
  };
  const std::int64_t window = 2 + draw(64), sinks = draw(window - 1);
  KvCache cache({kLayers, kHeads, kHeadDim, KvDtype::kFloat16}, window, sinks, 0, 16);
  cache.resize(1 + draw(4));
  std::vector<Row> rows(static_cast<std::size_t>(cache.num_rows()));
  std::vector<std::int64_t> totals(rows.size(), 0);
  std::uint16_t number = 0;
  for (int step = 0; step < 60; ++step) {
    const std::int64_t row = draw(cache.num_rows());
    const auto r = static_cast<std::size_t>(row);
    if (const std::int64_t kind = draw(5); kind < 2) {
      const std::int64_t count = 1 + draw(cache.ring(row).max_append());
      const std::int64_t end = cache.begin_append(row, count);
      for (std::int64_t i = 0; i < count; ++i) {
        rows[r][totals[r]++] = ++number;
        write(cache, row, cache.ring(row).slot_of(end - count + i), number);
      }
      while (static_cast<std::int64_t>(rows[r].size()) > cache.ring_size()) {
        rows[r].erase(rows[r].lower_bound(sinks));
      }
    } else if (kind == 2) {
      const std::int64_t least = cache.ring(row).min_total(), total = least + draw(totals[r] - least + 1);
      std::vector<std::int32_t> targets;
      for (std::int64_t target = 0; target < cache.num_rows(); ++target) {
        if (target == row || draw(2) == 0) continue;
        const auto t = static_cast<std::size_t>(target);
        targets.push_back(static_cast<std::int32_t>(target));
        rows[t] = rows[r];
        rows[t].erase(rows[t].lower_bound(total), rows[t].end());
        totals[t] = total;
      }
      cache.fork(row, targets.data(), static_cast<std::int64_t>(targets.size()), total);
    } else if (kind == 3) {
      const std::int64_t least = cache.ring(row).min_total(), total = least + draw(totals[r] - least + 1);
      cache.truncate(row, total);
      rows[r].erase(rows[r].lower_bound(total), rows[r].end());
      totals[r] = total;
    } else {
      cache.release_row(row);
      rows[r].clear();
      totals[r] = 0;
    }
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto at = static_cast<std::int64_t>(i);
      CHECK(cache.next_position(at) == totals[i]);
      for (const auto& [position, written] : rows[i]) {
        CHECK(cache.ring(at).holds(position));
        CHECK(holds(cache, at, cache.ring(at).slot_of(position), written));
      }
    }
  }
}

void warm_steps_take_no_memory() {
  KvCache cache({kLayers, kHeads, kHeadDim, KvDtype::kFloat16}, 64, 0, 0, 64);
  cache.resize(4);
  cache.begin_append(0, 20);
  const std::int32_t others[] = {1, 2, 3};
  cache.fork(0, others, 3, 20);
  std::size_t before = 0;
  for (int step = 0; step < 90; ++step) {  // the rings wrap at the 44th
    if (step == 50) before = allocations;
    const std::int64_t source = step % 2 == 0 ? 0 : 2;
    cache.fork(source, others + (step % 2 == 0 ? 2 : 0), 1, cache.next_position(source));
    for (std::int64_t row = 0; row < 4; ++row) cache.begin_append(row, 1);
  }
  CHECK(allocations == before);
}

}  // namespace

int main() {
  for (std::uint64_t seed = 0; seed < 200; ++seed) random_schedule(seed);
  warm_steps_take_no_memory();
  return outcome();
}
