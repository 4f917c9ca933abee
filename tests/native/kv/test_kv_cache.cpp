// Random schedules of appends, reorders and truncations against rows that are kept as plain lists, with every
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

std::uint16_t* value_at(const KvCache& cache, std::int64_t layer, bool value, std::int64_t row,
                        std::int64_t head, std::int64_t slot) {
  std::byte* buffer = value ? cache.values(layer) : cache.keys(layer);
  const std::int64_t index = ((row * kHeads + head) * cache.capacity() + slot) * kHeadDim;
  return reinterpret_cast<std::uint16_t*>(buffer) + index;
}

// What the graph does: the same number all over one position, told apart by layer, side and head.
void write(const KvCache& cache, std::int64_t row, std::int64_t slot, std::uint16_t number) {
  for (std::int64_t layer = 0; layer < kLayers; ++layer) {
    for (const bool value : {false, true}) {
      for (std::int64_t head = 0; head < kHeads; ++head) {
        std::uint16_t* at = value_at(cache, layer, value, row, head, slot);
        for (std::int64_t d = 0; d < kHeadDim; ++d) {
          at[d] = static_cast<std::uint16_t>(number + 7919 * (layer * 6 + (value ? 3 : 0) + head) + d);
        }
      }
    }
  }
}

bool holds(const KvCache& cache, std::int64_t row, std::int64_t slot, std::uint16_t number) {
  for (std::int64_t layer = 0; layer < kLayers; ++layer) {
    for (const bool value : {false, true}) {
      for (std::int64_t head = 0; head < kHeads; ++head) {
        const std::uint16_t* at = value_at(cache, layer, value, row, head, slot);
        for (std::int64_t d = 0; d < kHeadDim; ++d) {
          if (at[d] != static_cast<std::uint16_t>(number + 7919 * (layer * 6 + (value ? 3 : 0) + head) + d)) {
            return false;
          }
        }
      }
    }
  }
  return true;
}

void random_schedule(std::uint64_t seed) {
  std::uint32_t draws = 0;
  const auto draw = [&](std::int64_t below) {
    return static_cast<std::int64_t>(uniform(seed, 0, draws++) * static_cast<double>(below));
  };
  const std::int64_t window = 2 + draw(10), sinks = draw(window - 1);
  KvCache cache({kLayers, kHeads, kHeadDim, KvDtype::kFloat16}, window, sinks, 2);
  cache.reset(1 + draw(3));
  std::vector<Row> rows(static_cast<std::size_t>(cache.num_rows()));
  std::vector<std::int64_t> totals(rows.size(), 0);
  std::uint16_t number = 0;
  for (int step = 0; step < 60; ++step) {
    const std::int64_t row = draw(cache.num_rows());
    const auto r = static_cast<std::size_t>(row);
    if (const std::int64_t kind = draw(4); kind < 2) {
      const std::int64_t count = 1 + draw(cache.ring(row).max_append());
      const std::int64_t end = cache.begin_append(row, count);
      for (std::int64_t i = 0; i < count; ++i) {
        rows[r][totals[r]++] = ++number;
        write(cache, row, end - count + i, number);
      }
      while (static_cast<std::int64_t>(rows[r].size()) > window) rows[r].erase(rows[r].lower_bound(sinks));
    } else if (kind == 2) {
      std::vector<std::int32_t> sources(static_cast<std::size_t>(1 + draw(5)));
      std::vector<Row> new_rows;
      std::vector<std::int64_t> new_totals;
      for (std::int32_t& source : sources) {
        source = static_cast<std::int32_t>(draw(cache.num_rows()));
        new_rows.push_back(rows[static_cast<std::size_t>(source)]);
        new_totals.push_back(totals[static_cast<std::size_t>(source)]);
      }
      cache.reorder(sources.data(), static_cast<std::int64_t>(sources.size()));
      rows = new_rows;
      totals = new_totals;
    } else if (totals[r] > 0 && cache.ring(row).slot_of(totals[r] - 1) >= 0 && totals[r] - 1 >= sinks) {
      cache.truncate(row, totals[r] - 1);
      rows[r].erase(--totals[r]);
    }
    for (std::size_t i = 0; i < rows.size(); ++i) {
      const auto at = static_cast<std::int64_t>(i);
      CHECK(cache.ring(at).length() == static_cast<std::int64_t>(rows[i].size()));
      for (const auto& [position, written] : rows[i]) {
        CHECK(holds(cache, at, cache.ring(at).slot_of(position), written));
      }
    }
  }
}

void warm_steps_take_no_memory() {
  KvCache cache({kLayers, kHeads, kHeadDim, KvDtype::kFloat16}, 64, 0, 64);
  cache.reset(1);
  cache.begin_append(0, 20);
  const std::vector<std::int32_t> fork{0, 0, 0, 0}, turn{1, 2, 3, 0}, twice{2, 2, 0, 1};
  cache.reorder(fork.data(), 4);
  std::size_t before = 0;
  for (int step = 0; step < 90; ++step) {  // the rings wrap at the 44th
    if (step == 50) before = allocations;
    cache.reorder((step % 2 == 0 ? turn : twice).data(), 4);
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
