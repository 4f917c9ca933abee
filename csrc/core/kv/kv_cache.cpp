#include "core/kv/kv_cache.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <stdexcept>
#include <string>

namespace sabiyarn {

namespace {

constexpr std::int64_t tiles_up(std::int64_t slots) noexcept {
  return (slots + kKeyTile - 1) / kKeyTile * kKeyTile;
}
constexpr std::int64_t tiles_down(std::int64_t slots) noexcept { return slots / kKeyTile * kKeyTile; }

template <typename Action>
void with_bits(KvDtype dtype, const Action& action) {
  // Storage does no arithmetic: unsigned integers of the same size stand for the values.
  switch (value_bytes(dtype)) {
    case 1:
      return action(std::uint8_t{});
    case 2:
      return action(std::uint16_t{});
    default:
      return action(std::uint32_t{});
  }
}

}  // namespace

KvCache::KvCache(KvShape shape, std::int64_t window, std::int64_t num_sink_tokens, std::int64_t slack,
                 std::int64_t min_capacity)
    : shape_(shape), empty_ring_(window, num_sink_tokens, slack), min_capacity_(min_capacity) {
  if (shape.num_layers < 1 || shape.num_heads < 1 || shape.head_dim < 1) {
    throw std::invalid_argument("num_layers, num_heads and head_dim must be at least 1");
  }
  if (min_capacity < 1) throw std::invalid_argument("min_capacity must be at least 1");
  min_capacity_ = tiles_up(std::min(min_capacity, ring_size()));
  buffers_.resize(static_cast<std::size_t>(2 * shape.num_layers));
}

std::size_t KvCache::slot_bytes() const noexcept {
  return static_cast<std::size_t>(shape_.head_dim) * value_bytes(shape_.dtype);
}

std::size_t KvCache::row_bytes(std::int64_t capacity) const noexcept {
  return static_cast<std::size_t>(shape_.num_heads * capacity) * slot_bytes();
}

std::size_t KvCache::bytes_per_position() const noexcept {
  return static_cast<std::size_t>(2 * shape_.num_layers * shape_.num_heads) * slot_bytes();
}

std::size_t KvCache::nbytes() const noexcept {
  std::size_t total = 0;
  for (const PageBuffer& buffer : buffers_) total += buffer.size();
  return total;
}

void KvCache::reserve(std::int64_t positions) {
  if (positions <= capacity_) return;
  if (positions > ring_size()) {
    throw std::out_of_range("reserve: " + std::to_string(positions) + " positions; a row holds at most " +
                            std::to_string(ring_size()));
  }
  grow(capacity_for(positions, capacity_));
}

std::int64_t KvCache::capacity_for(std::int64_t positions, std::int64_t at_least) const noexcept {
  std::int64_t capacity = std::max(at_least, min_capacity_);
  while (capacity < positions) capacity = std::min(2 * capacity, ring_size());
  return capacity;
}

void KvCache::resize(std::int64_t num_new) {
  const std::int64_t num_old = num_rows();
  if (num_new < num_old) throw std::invalid_argument("resize: rows are only added");
  if (num_new == num_old) return;
  if (capacity_ > 0 && !has_room(num_new, capacity_)) lay_out(num_new, capacity_);
  std::vector<std::int64_t> wider(static_cast<std::size_t>(num_new * num_new), 0);
  for (std::int64_t row = 0; row < num_old; ++row) {
    std::copy_n(shared_.data() + row * num_old, num_old, wider.data() + row * num_new);
  }
  shared_.swap(wider);
  rings_.resize(static_cast<std::size_t>(num_new), empty_ring_);
  ++layout_version_;
}

bool KvCache::has_room(std::int64_t rows, std::int64_t capacity) const noexcept {
  const std::size_t needed = static_cast<std::size_t>(rows) * row_bytes(capacity);
  return std::all_of(buffers_.begin(), buffers_.end(),
                     [needed](const PageBuffer& buffer) { return buffer.size() >= needed; });
}

void KvCache::grow(std::int64_t capacity) {
  if (shares_pages_ || !has_room(num_rows(), capacity)) {
    lay_out(num_rows(), capacity);
    return;
  }
  const std::size_t old_head = static_cast<std::size_t>(capacity_) * slot_bytes();
  const std::size_t new_head = static_cast<std::size_t>(capacity) * slot_bytes();
  const auto num_heads = static_cast<std::size_t>(shape_.num_heads);
  for (PageBuffer& buffer : buffers_) {
    // Strides only grow, so if the last run moves first nothing is overwritten unread.
    for (std::size_t row = rings_.size(); row-- > 0;) {
      const std::size_t live = static_cast<std::size_t>(tiles_up(rings_[row].used_slots())) * slot_bytes();
      if (live == 0) continue;
      for (std::size_t head = num_heads; head-- > 0;) {
        std::memmove(buffer.data() + (row * num_heads + head) * new_head,
                     buffer.data() + (row * num_heads + head) * old_head, live);
      }
    }
  }
  capacity_ = capacity;
  ++layout_version_;
}

void KvCache::lay_out(std::int64_t num_new, std::int64_t capacity) {
  const std::size_t new_row = row_bytes(capacity);
  // leader[i]: the first row that begins like row i, or row i itself.
  std::vector<std::int64_t> leader(rings_.size());
  for (std::int64_t row = 0; row < num_rows(); ++row) {
    leader[static_cast<std::size_t>(row)] = row;
    for (std::int64_t other = 0; other < row; ++other) {
      if (leader[static_cast<std::size_t>(other)] == other && worth_sharing(shared(other, row), capacity)) {
        leader[static_cast<std::size_t>(row)] = other;
        break;
      }
    }
  }
  bool shared_some = false;
  std::vector<std::int64_t> shown(rings_.size());  // of each leader: does it show its pages in this buffer?
  try {
    for (PageBuffer& buffer : buffers_) {
      std::fill(shown.begin(), shown.end(), 0);
      PageBuffer target(static_cast<std::size_t>(num_new) * new_row);
      for (std::int64_t row = 0; row < num_rows(); ++row) {
        // A leader's pages are shown to its followers, which then copy only what is their own.
        const auto follows = [&](std::int64_t other) {
          return leader[static_cast<std::size_t>(other)] == row;
        };
        std::vector<std::byte*> places;
        for (std::int64_t other = row; follows(row) && other < num_rows(); ++other) {
          if (follows(other)) places.push_back(target.data() + static_cast<std::size_t>(other) * new_row);
        }
        const std::byte* source = buffer.data() + static_cast<std::size_t>(row) * row_bytes();
        if (places.size() > 1 && show(source, capacity_, places, capacity, ring(row).used_slots())) {
          shown[static_cast<std::size_t>(row)] = 1;
          shared_some = true;
          continue;
        }
        const std::int64_t first = leader[static_cast<std::size_t>(row)];
        const std::int64_t present = shown[static_cast<std::size_t>(first)] != 0 ? shared(first, row) : 0;
        copy_slots(source, capacity_, target.data() + static_cast<std::size_t>(row) * new_row, capacity,
                   present, ring(row).used_slots());
      }
      buffer = std::move(target);
    }
  } catch (const std::bad_alloc&) {
    free();  // some layers have the new layout and some the old: better empty than mixed
    throw;
  }
  shares_pages_ = shared_some;
  capacity_ = capacity;
  ++layout_version_;
}

bool KvCache::worth_sharing(std::int64_t slots, std::int64_t capacity) const noexcept {
  return row_bytes(capacity) % SharedPages::page_bytes() == 0 &&
         static_cast<std::size_t>(tiles_down(slots)) * slot_bytes() >= SharedPages::page_bytes();
}

bool KvCache::show(const std::byte* source, std::int64_t source_capacity,
                   const std::vector<std::byte*>& targets, std::int64_t capacity,
                   std::int64_t end_slot) const noexcept {
  SharedPages pages(row_bytes(capacity));
  if (!pages) return false;
  const std::size_t old_head = static_cast<std::size_t>(source_capacity) * slot_bytes();
  const std::size_t new_head = static_cast<std::size_t>(capacity) * slot_bytes();
  const std::size_t count = static_cast<std::size_t>(tiles_up(end_slot)) * slot_bytes();
  for (std::size_t h = 0; h < static_cast<std::size_t>(shape_.num_heads); ++h) {
    if (!pages.write(h * new_head, source + h * old_head, count)) return false;
  }
  return std::all_of(targets.begin(), targets.end(),
                     [&pages](std::byte* target) { return pages.show_at(target); });
}

void KvCache::fork(std::int64_t source, const std::int32_t* targets, std::int64_t num_targets,
                   std::int64_t total) {
  WindowRing ring = rings_.at(static_cast<std::size_t>(source));
  ring.truncate(total);
  bool shares = true;
  for (std::int64_t i = 0; i < num_targets; ++i) {
    if (targets[i] < 0 || targets[i] >= num_rows() || targets[i] == source) {
      throw std::out_of_range("fork: row " + std::to_string(targets[i]) + " is no other row of the " +
                              std::to_string(num_rows()));
    }
    shares = shares && shared(source, targets[i]) == 0;
  }
  const std::int64_t used = ring.used_slots();
  if (capacity_ > 0) {
    for (PageBuffer& buffer : buffers_) {
      const auto row = [&](std::int64_t r) {
        return buffer.data() + static_cast<std::size_t>(r) * row_bytes();
      };
      if (shares && worth_sharing(used, capacity_)) {
        std::vector<std::byte*> places = {row(source)};
        for (std::int64_t i = 0; i < num_targets; ++i) places.push_back(row(targets[i]));
        const std::int64_t written = rings_[static_cast<std::size_t>(source)].used_slots();
        if (show(row(source), capacity_, places, capacity_, written)) {
          shares_pages_ = true;
          continue;
        }
      }
      for (std::int64_t i = 0; i < num_targets; ++i) {
        copy_slots(row(source), capacity_, row(targets[i]), capacity_, shared(source, targets[i]), used);
      }
    }
  }
  for (std::int64_t i = 0; i < num_targets; ++i) {
    const std::int64_t target = targets[i];
    rings_[static_cast<std::size_t>(target)] = ring;
    for (std::int64_t other = 0; other < num_rows(); ++other) {
      const std::int64_t common = other == source ? used : std::min(shared(source, other), used);
      if (other != target) shared(target, other) = shared(other, target) = common;
    }
  }
}

void KvCache::copy_slots(const std::byte* source, std::int64_t source_capacity, std::byte* target,
                         std::int64_t target_capacity, std::int64_t first_slot,
                         std::int64_t end_slot) const noexcept {
  if (first_slot >= end_slot) return;
  first_slot = tiles_down(first_slot);
  end_slot = tiles_up(end_slot);
  const std::size_t offset = static_cast<std::size_t>(first_slot) * slot_bytes();
  const std::size_t count = static_cast<std::size_t>(end_slot - first_slot) * slot_bytes();
  for (std::int64_t h = 0; h < shape_.num_heads; ++h) {
    std::memcpy(target + static_cast<std::size_t>(h * target_capacity) * slot_bytes() + offset,
                source + static_cast<std::size_t>(h * source_capacity) * slot_bytes() + offset, count);
  }
}

void KvCache::unshare_from(std::int64_t row, std::int64_t slot) noexcept {
  for (std::int64_t other = 0; other < num_rows(); ++other) {
    shared(row, other) = shared(other, row) = std::min(shared(row, other), slot);
  }
}

std::int64_t KvCache::begin_append(std::int64_t row, std::int64_t count) {
  WindowRing& ring = rings_.at(static_cast<std::size_t>(row));
  const std::int64_t first = ring.total();
  WindowRing appended = ring;
  appended.append(count);
  reserve(std::min(appended.total(), ring_size()));
  ring = appended;
  // The slots from the first new one on are overwritten; behind the ring's end it goes on at the sinks.
  const std::int64_t slot = ring.slot_of(first);
  unshare_from(row, slot + count <= ring_size() ? slot : ring.num_sinks());
  return ring.total();
}

void KvCache::truncate(std::int64_t row, std::int64_t total) {
  WindowRing& ring = rings_.at(static_cast<std::size_t>(row));
  ring.truncate(total);
  unshare_from(row, ring.used_slots());
}

void KvCache::restart(std::int64_t row) {
  rings_.at(static_cast<std::size_t>(row)).clear();
  unshare_from(row, 0);
}

void KvCache::release_row(std::int64_t row) {
  restart(row);
  const std::size_t begin = static_cast<std::size_t>(row) * row_bytes();
  for (PageBuffer& buffer : buffers_) buffer.discard(begin, begin + row_bytes(), shares_pages_);
}

// Calls move(stored, logical, stride) for each position of each layer, side and head: head_dim values that
// lie `stride` apart in the cache, and where they stand in [num_layers, 2, num_heads, end - first, head_dim].
template <typename Bits, typename Move>
void KvCache::for_each_position(std::int64_t row, std::int64_t first, std::int64_t end,
                                const Move& move) const {
  const WindowRing& ring = rings_.at(static_cast<std::size_t>(row));
  const std::int64_t head_dim = shape_.head_dim;
  std::int64_t logical = 0;
  for (std::size_t i = 0; i < buffers_.size(); ++i) {
    const bool woven = i % 2 == 0;
    auto* head = reinterpret_cast<Bits*>(buffers_[i].data()) + row * shape_.num_heads * capacity_ * head_dim;
    for (std::int64_t h = 0; h < shape_.num_heads; ++h, head += capacity_ * head_dim) {
      for (std::int64_t position = first; position < end; ++position, logical += head_dim) {
        const std::int64_t slot = ring.slot_of(position);
        if (woven) {
          move(head + tiles_down(slot) * head_dim + slot % kKeyTile, logical, kKeyTile);
        } else {
          move(head + slot * head_dim, logical, 1);
        }
      }
    }
  }
}

void KvCache::read(std::int64_t row, std::int64_t first, std::int64_t end, std::byte* target) const {
  const WindowRing& held = ring(row);
  if (first < 0 || first > end || end > held.total()) {
    throw std::out_of_range("read positions " + std::to_string(first) + " to " + std::to_string(end) +
                            ": the row has " + std::to_string(held.total()) + " tokens");
  }
  for (std::int64_t position = first; position < end; ++position) {
    if (held.holds(position)) continue;
    throw std::out_of_range("read positions " + std::to_string(first) + " to " + std::to_string(end) + ": " +
                            std::to_string(position) + " was evicted; the row holds " +
                            std::to_string(held.oldest()) + " to " + std::to_string(held.total()) +
                            " and the first " + std::to_string(held.num_sinks()));
  }
  with_bits(shape_.dtype, [&](auto bits) {
    using Bits = decltype(bits);
    for_each_position<Bits>(row, first, end,
                            [&](const Bits* stored, std::int64_t logical, std::int64_t stride) {
                              Bits* to = reinterpret_cast<Bits*>(target) + logical;
                              for (std::int64_t d = 0; d < shape_.head_dim; ++d) to[d] = stored[d * stride];
                            });
  });
}

void KvCache::write(std::int64_t row, std::int64_t count, const std::byte* source) {
  const std::int64_t end = begin_append(row, count);
  with_bits(shape_.dtype, [&](auto bits) {
    using Bits = decltype(bits);
    for_each_position<Bits>(row, end - count, end,
                            [&](Bits* stored, std::int64_t logical, std::int64_t stride) {
                              const Bits* from = reinterpret_cast<const Bits*>(source) + logical;
                              for (std::int64_t d = 0; d < shape_.head_dim; ++d) stored[d * stride] = from[d];
                            });
  });
}

void KvCache::clear() noexcept {
  for (PageBuffer& buffer : buffers_) buffer.zero();
  shares_pages_ = false;
  rings_.clear();
  shared_.clear();
  capacity_ = 0;
  ++layout_version_;
}

void KvCache::free() noexcept {
  for (PageBuffer& buffer : buffers_) buffer = PageBuffer();
  clear();
}

}  // namespace sabiyarn
