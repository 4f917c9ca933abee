#include "core/page_buffer.hpp"

#include <sys/mman.h>

#include <new>

namespace sabiyarn {

PageBuffer::PageBuffer(std::size_t nbytes) {
  if (nbytes == 0) return;
  void* pages = mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (pages == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<std::byte*>(pages);
  size_ = nbytes;
}

void PageBuffer::release() noexcept {
  if (data_ != nullptr) munmap(data_, size_);
  data_ = nullptr;
  size_ = 0;
}

}  // namespace sabiyarn
