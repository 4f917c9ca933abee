#include "core/kv/kv_cache.hpp"

#include <algorithm>
#include <cstring>
#include <new>
#include <numeric>
#include <stdexcept>

namespace sabiyarn {

KvCache::KvCache(KvShape shape, std::int64_t window, std::int64_t num_sink_tokens, std::int64_t min_capacity)
    : shape_(shape), window_(window), num_sinks_(num_sink_tokens), min_capacity_(min_capacity) {
  if (shape.num_layers < 1 || shape.num_heads < 1 || shape.head_dim < 1) {
    throw std::invalid_argument("num_layers, num_heads and head_dim must be at least 1");
  }
  if (min_capacity < 1) throw std::invalid_argument("min_capacity must be at least 1");
  static_cast<void>(WindowRing(window, num_sink_tokens));  // checks both
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

void KvCache::reset(std::int64_t num_rows) {
  if (num_rows < 1) throw std::invalid_argument("a KV cache needs at least one row");
  rings_.assign(static_cast<std::size_t>(num_rows), WindowRing(window_, num_sinks_));
  shared_.assign(static_cast<std::size_t>(num_rows * num_rows), 0);
  capacity_ = 0;
  ++layout_version_;
}

void KvCache::reserve(std::int64_t positions) {
  if (positions <= capacity_) return;
  if (positions > window_) throw std::out_of_range("reserve: more positions than the window holds");
  grow(capacity_for(positions, capacity_));
}

std::int64_t KvCache::capacity_for(std::int64_t positions, std::int64_t at_least) const noexcept {
  std::int64_t capacity = std::max(at_least, std::min(min_capacity_, window_));
  while (capacity < positions) capacity = std::min(2 * capacity, window_);
  return capacity;
}

void KvCache::grow(std::int64_t capacity) {
  const std::size_t needed = static_cast<std::size_t>(num_rows()) * row_bytes(capacity);
  const bool fits = std::all_of(buffers_.begin(), buffers_.end(),
                                [needed](const PageBuffer& buffer) { return buffer.size() >= needed; });
  if (!fits || shares_pages_) {
    identity_.resize(rings_.size());
    std::iota(identity_.begin(), identity_.end(), 0);
    lay_out(identity_.data(), num_rows(), capacity);
    return;
  }
  const std::size_t old_head = static_cast<std::size_t>(capacity_) * slot_bytes();
  const std::size_t new_head = static_cast<std::size_t>(capacity) * slot_bytes();
  const auto num_heads = static_cast<std::size_t>(shape_.num_heads);
  for (PageBuffer& buffer : buffers_) {
    // Strides only grow, so if the last run moves first nothing is overwritten unread.
    for (std::size_t row = rings_.size(); row-- > 0;) {
      const std::size_t live = static_cast<std::size_t>(rings_[row].length()) * slot_bytes();
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

void KvCache::lay_out(const std::int32_t* sources, std::int64_t num_new, std::int64_t capacity) {
  const std::size_t new_row = row_bytes(capacity);
  // leader[i]: the first row that begins like row i; prefix[leader]: slots that its followers have in common
  // with it.
  std::vector<std::int64_t> leader(static_cast<std::size_t>(num_new));
  std::vector<std::int64_t> prefix(static_cast<std::size_t>(num_new), 0);
  std::vector<std::int64_t> followers(static_cast<std::size_t>(num_new), 0);
  bool shares = false;
  for (std::int64_t row = 0; row < num_new; ++row) {
    const auto at = static_cast<std::size_t>(row);
    leader[at] = row;
    prefix[at] = ring(sources[row]).length();
    if (new_row % SharedPages::page_bytes() != 0) continue;
    for (std::int64_t other = 0; other < row; ++other) {
      const auto first = static_cast<std::size_t>(other);
      const std::int64_t common = std::min(prefix[first], common_slots(sources[other], sources[row]));
      if (leader[first] == other &&
          static_cast<std::size_t>(common) * slot_bytes() >= SharedPages::page_bytes()) {
        leader[at] = other;
        prefix[first] = common;
        ++followers[first];
        shares = true;
        break;
      }
    }
  }
  bool shared_some = false;
  try {
    for (PageBuffer& buffer : buffers_) {
      PageBuffer target(static_cast<std::size_t>(num_new) * new_row);
      for (std::int64_t first = 0; shares && first < num_new; ++first) {
        if (followers[static_cast<std::size_t>(first)] == 0) continue;
        const bool shown = show_prefix(buffer, target, sources[first], first, leader, capacity,
                                       prefix[static_cast<std::size_t>(first)]);
        shared_some = shared_some || shown;
        if (!shown) prefix[static_cast<std::size_t>(first)] = 0;  // plain copies, in the layers to come too
      }
      for (std::int64_t row = 0; row < num_new; ++row) {
        const auto head_of_group = static_cast<std::size_t>(leader[static_cast<std::size_t>(row)]);
        const std::int64_t present = shared_some && followers[head_of_group] > 0 ? prefix[head_of_group] : 0;
        copy_slots(buffer.data() + static_cast<std::size_t>(sources[row]) * row_bytes(), capacity_,
                   target.data() + static_cast<std::size_t>(row) * new_row, capacity, present,
                   ring(sources[row]).length());
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

bool KvCache::show_prefix(const PageBuffer& from, const PageBuffer& to, std::int64_t source,
                          std::int64_t first, const std::vector<std::int64_t>& leader, std::int64_t capacity,
                          std::int64_t end_slot) const noexcept {
  SharedPages pages(row_bytes(capacity));
  if (!pages) return false;
  const std::size_t old_head = static_cast<std::size_t>(capacity_) * slot_bytes();
  const std::size_t new_head = static_cast<std::size_t>(capacity) * slot_bytes();
  const std::byte* run = from.data() + static_cast<std::size_t>(source) * row_bytes();
  for (std::int64_t h = 0; h < shape_.num_heads; ++h, run += old_head) {
    if (!pages.write(static_cast<std::size_t>(h) * new_head, run,
                     static_cast<std::size_t>(end_slot) * slot_bytes())) {
      return false;
    }
  }
  for (std::size_t row = static_cast<std::size_t>(first); row < leader.size(); ++row) {
    if (leader[row] == first && !pages.show_at(to.data() + row * row_bytes(capacity))) return false;
  }
  return true;
}

void KvCache::copy_slots(const std::byte* source, std::int64_t source_capacity, std::byte* target,
                         std::int64_t target_capacity, std::int64_t first_slot,
                         std::int64_t end_slot) const noexcept {
  if (first_slot >= end_slot) return;
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

void KvCache::move_slots(std::int64_t row, const std::vector<SlotMove>& moves) noexcept {
  const std::size_t head_bytes = static_cast<std::size_t>(capacity_) * slot_bytes();
  for (PageBuffer& buffer : buffers_) {
    std::byte* head = buffer.data() + static_cast<std::size_t>(row) * row_bytes();
    for (std::int64_t h = 0; h < shape_.num_heads; ++h, head += head_bytes) {
      for (const SlotMove& move : moves) {
        std::memcpy(head + static_cast<std::size_t>(move.to) * slot_bytes(),
                    head + static_cast<std::size_t>(move.from) * slot_bytes(), slot_bytes());
      }
    }
  }
  for (const SlotMove& move : moves) unshare_from(row, move.to);
}

std::int64_t KvCache::begin_append(std::int64_t row, std::int64_t count) {
  WindowRing& ring = rings_.at(static_cast<std::size_t>(row));
  if (count >= 1 && count <= ring.max_append()) reserve(std::min(ring.length() + count, window_));
  const std::int64_t old_length = ring.length();
  const std::int64_t landing = ring.append(count, moves_);
  if (landing < old_length) {
    unshare_from(row, landing);
    move_slots(row, moves_);
  }
  return ring.length();
}

void KvCache::truncate(std::int64_t row, std::int64_t total) {
  WindowRing& ring = rings_.at(static_cast<std::size_t>(row));
  ring.truncate(total, moves_);
  unshare_from(row, ring.length());
  move_slots(row, moves_);
}

void KvCache::restart(std::int64_t row) {
  rings_.at(static_cast<std::size_t>(row)).clear();
  unshare_from(row, 0);
}

void KvCache::keep_prefix(std::int64_t row, std::int64_t total) {
  WindowRing ring = rings_.at(static_cast<std::size_t>(row));
  if (total < 1 || total > ring.total()) throw std::out_of_range("keep_prefix: more than the row was given");
  if (ring.length() < ring.total()) throw std::out_of_range("keep_prefix: positions were evicted");
  ring.truncate(total, moves_);  // slot == position: nothing moves
  const std::int64_t capacity = capacity_for(total, 0);
  const std::size_t old_head = static_cast<std::size_t>(capacity_) * slot_bytes();
  const std::size_t new_head = static_cast<std::size_t>(capacity) * slot_bytes();
  const auto num_heads = static_cast<std::size_t>(shape_.num_heads);
  for (PageBuffer& buffer : buffers_) {
    // Runs only move towards the start: if the first one moves first nothing is overwritten unread.
    const std::byte* source = buffer.data() + static_cast<std::size_t>(row) * row_bytes();
    for (std::size_t head = 0; head < num_heads && (row > 0 || new_head < old_head); ++head) {
      std::memmove(buffer.data() + head * new_head, source + head * old_head,
                   static_cast<std::size_t>(total) * slot_bytes());
    }
  }
  rings_.assign(1, ring);
  shared_.assign(1, 0);
  capacity_ = capacity;
  ++layout_version_;
}

void KvCache::reorder(const std::int32_t* sources, std::int64_t num_new) {
  const std::int64_t num_old = num_rows();
  if (num_new < 1) throw std::invalid_argument("a KV cache needs at least one row");
  for (std::int64_t row = 0; row < num_new; ++row) {
    if (sources[row] < 0 || sources[row] >= num_old) {
      throw std::out_of_range("reorder: a source is not a row of the cache");
    }
  }
  if (capacity_ > 0) {
    if (num_new > num_old) {
      lay_out(sources, num_new, capacity_);
    } else {
      copy_rows(sources, num_new);
    }
  }
  new_rings_.assign(static_cast<std::size_t>(num_new), WindowRing(window_, num_sinks_));
  new_shared_.assign(static_cast<std::size_t>(num_new * num_new), 0);
  for (std::int64_t a = 0; a < num_new; ++a) {
    new_rings_[static_cast<std::size_t>(a)] = ring(sources[a]);
    for (std::int64_t b = 0; b < num_new; ++b) {
      new_shared_[static_cast<std::size_t>(a * num_new + b)] = common_slots(sources[a], sources[b]);
    }
  }
  rings_.swap(new_rings_);
  shared_.swap(new_shared_);
  if (num_new != num_old) ++layout_version_;
}

void KvCache::copy_rows(const std::int32_t* sources, std::int64_t num_new) {
  // How many rows still have to be copied from each old row. A row that nobody waits for may be overwritten.
  const auto source_of = [&](std::int64_t row) { return static_cast<std::int64_t>(sources[row]); };
  waiting_.assign(rings_.size(), 0);
  ready_.clear();
  for (std::int64_t row = 0; row < num_new; ++row) {
    if (source_of(row) != row) ++waiting_[static_cast<std::size_t>(source_of(row))];
  }
  for (std::int64_t row = 0; row < num_new; ++row) {
    if (source_of(row) != row && waiting_[static_cast<std::size_t>(row)] == 0) ready_.push_back(row);
  }
  while (!ready_.empty()) {
    const std::int64_t row = ready_.back();
    ready_.pop_back();
    const std::int64_t source = source_of(row);
    for (PageBuffer& buffer : buffers_) {
      copy_slots(buffer.data() + static_cast<std::size_t>(source) * row_bytes(), capacity_,
                 buffer.data() + static_cast<std::size_t>(row) * row_bytes(), capacity_, shared(row, source),
                 ring(source).length());
    }
    waiting_[static_cast<std::size_t>(row)] = -1;  // done
    if (--waiting_[static_cast<std::size_t>(source)] == 0 && source < num_new &&
        source_of(source) != source) {
      ready_.push_back(source);
    }
  }
  // What is left waits in closed circles, each row for exactly one other.
  for (std::int64_t row = 0; row < num_new; ++row) {
    if (source_of(row) == row || waiting_[static_cast<std::size_t>(row)] <= 0) continue;
    rotate_rows(row, sources);
    for (std::int64_t next = row; waiting_[static_cast<std::size_t>(next)] > 0; next = source_of(next)) {
      waiting_[static_cast<std::size_t>(next)] = -1;
    }
  }
}

void KvCache::rotate_rows(std::int64_t start, const std::int32_t* sources) {
  std::int64_t first = window_;
  std::int64_t end = 0;
  std::int64_t row = start;
  do {
    const std::int64_t source = sources[row];
    first = std::min(first, shared(row, source));
    end = std::max(end, ring(source).length());
    row = source;
  } while (row != start);
  if (first >= end) return;

  const std::size_t head_bytes = static_cast<std::size_t>(capacity_) * slot_bytes();
  const std::size_t offset = static_cast<std::size_t>(first) * slot_bytes();
  const std::size_t count = static_cast<std::size_t>(end - first) * slot_bytes();
  scratch_.resize(count);
  for (PageBuffer& buffer : buffers_) {
    for (std::int64_t h = 0; h < shape_.num_heads; ++h) {
      const auto run = [&](std::int64_t r) {
        return buffer.data() + static_cast<std::size_t>(r) * row_bytes() +
               static_cast<std::size_t>(h) * head_bytes + offset;
      };
      std::memcpy(scratch_.data(), run(start), count);
      row = start;
      for (std::int64_t source = sources[row]; source != start; row = source, source = sources[row]) {
        std::memcpy(run(row), run(source), count);
      }
      std::memcpy(run(row), scratch_.data(), count);
    }
  }
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
