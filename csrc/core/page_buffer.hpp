// csrc/core/page_buffer.hpp - zeroed memory taken from, and given back to, the system in whole pages.
//
// malloc may keep what is freed; a device with 512 MiB wants it back at once. Pages that nobody has written
// cost no physical memory, so a buffer may be larger than what is live in it.
#pragma once

#include <cstddef>
#include <utility>

namespace sabiyarn {

class PageBuffer {
 public:
  PageBuffer() noexcept = default;
  explicit PageBuffer(std::size_t nbytes);  // throws std::bad_alloc
  ~PageBuffer() { release(); }

  PageBuffer(PageBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  PageBuffer& operator=(PageBuffer&& other) noexcept {
    if (this != &other) {
      release();
      data_ = std::exchange(other.data_, nullptr);
      size_ = std::exchange(other.size_, 0);
    }
    return *this;
  }
  PageBuffer(const PageBuffer&) = delete;
  PageBuffer& operator=(const PageBuffer&) = delete;

  std::byte* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }  // bytes, as asked for

 private:
  void release() noexcept;

  std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace sabiyarn
