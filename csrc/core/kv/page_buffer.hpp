// csrc/core/kv/page_buffer.hpp - zeroed memory taken from, and given back to, the system in whole pages.
//
// malloc may keep what is freed; a device with 512 MiB wants it back at once. Pages that nobody has written
// cost no physical memory, so a buffer may be larger than what is live in it.
#pragma once

#include <atomic>
#include <cstddef>
#include <utility>

namespace sabiyarn {

class PageBuffer {
 public:
  PageBuffer() noexcept = default;
  explicit PageBuffer(std::size_t nbytes);  // throws std::bad_alloc
  ~PageBuffer() { release(); }

  PageBuffer(PageBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        size_(other.size_.exchange(0, std::memory_order_relaxed)) {}
  PageBuffer& operator=(PageBuffer&& other) noexcept {
    if (this != &other) {
      release();
      data_ = std::exchange(other.data_, nullptr);
      size_.store(other.size_.exchange(0, std::memory_order_relaxed), std::memory_order_relaxed);
    }
    return *this;
  }
  PageBuffer(const PageBuffer&) = delete;
  PageBuffer& operator=(const PageBuffer&) = delete;

  std::byte* data() const noexcept { return data_; }
  // Bytes, as asked for. Alone of all this may be asked while another thread replaces the buffer.
  std::size_t size() const noexcept { return size_.load(std::memory_order_relaxed); }

  // Makes every byte zero by giving the pages back; the addresses stay.
  void zero() noexcept;

  // Gives the whole pages between the offsets `begin` and `end` back; what they held is undefined afterwards.
  // The addresses stay. shared: whether SharedPages may be shown there, which are let go of too.
  void discard(std::size_t begin, std::size_t end, bool shared) noexcept;

 private:
  void release() noexcept;

  std::byte* data_ = nullptr;
  std::atomic<std::size_t> size_ = 0;
};

// Bytes that several places of PageBuffers can show at once. Each place reads them until it writes, and then
// has a page of its own (copy on write), so that rows with the same beginning take its memory once.
class SharedPages {
 public:
  // Holds nothing (false as a bool) where the system lacks such pages.
  explicit SharedPages(std::size_t nbytes) noexcept;
  ~SharedPages();
  SharedPages(const SharedPages&) = delete;
  SharedPages& operator=(const SharedPages&) = delete;

  explicit operator bool() const noexcept { return file_ >= 0; }
  bool write(std::size_t offset, const std::byte* source, std::size_t nbytes) noexcept;
  // Shows all bytes at `target`, which is the start of a page inside a PageBuffer; they stay visible there
  // after this object is gone. False: nothing was changed.
  bool show_at(std::byte* target) const noexcept;

  static std::size_t page_bytes() noexcept;

 private:
  int file_ = -1;
  std::size_t size_ = 0;
};

}  // namespace sabiyarn
