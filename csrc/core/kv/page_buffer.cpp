#include "core/kv/page_buffer.hpp"

#include <sys/mman.h>
#include <unistd.h>

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

void PageBuffer::zero() noexcept {
  if (data_ == nullptr) return;
  // Fresh pages over the old ones. Replacing a mapping at its own address does not fail.
  static_cast<void>(
      mmap(data_, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
}

void PageBuffer::discard(std::size_t begin, std::size_t end, bool shared) noexcept {
  const std::size_t page = SharedPages::page_bytes();
  begin = (begin + page - 1) / page * page;
  end = end / page * page;
  if (data_ == nullptr || begin >= end) return;
  // A fresh mapping lets go of the file behind shared pages, but cuts the buffer's mapping in pieces, of
  // which a process has a limited number. Where either call fails the pages stay, which costs memory only.
  if (shared) {
    static_cast<void>(mmap(data_ + begin, end - begin, PROT_READ | PROT_WRITE,
                           MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
  } else {
    static_cast<void>(madvise(data_ + begin, end - begin, MADV_DONTNEED));
  }
}

std::size_t SharedPages::page_bytes() noexcept {
  static const auto bytes = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  return bytes;
}

SharedPages::~SharedPages() {
  if (file_ >= 0) close(file_);
}

#if defined(__linux__)

SharedPages::SharedPages(std::size_t nbytes) noexcept : size_(nbytes) {
  file_ = memfd_create("sabiyarn-kv", MFD_CLOEXEC);
  if (file_ >= 0 && ftruncate(file_, static_cast<off_t>(nbytes)) != 0) {
    close(file_);
    file_ = -1;
  }
}

bool SharedPages::write(std::size_t offset, const std::byte* source, std::size_t nbytes) noexcept {
  while (nbytes > 0) {
    const ssize_t written = pwrite(file_, source, nbytes, static_cast<off_t>(offset));
    if (written <= 0) return false;
    offset += static_cast<std::size_t>(written);
    source += written;
    nbytes -= static_cast<std::size_t>(written);
  }
  return true;
}

bool SharedPages::show_at(std::byte* target) const noexcept {
  return mmap(target, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, file_, 0) != MAP_FAILED;
}

#else

SharedPages::SharedPages(std::size_t nbytes) noexcept : size_(nbytes) {}
bool SharedPages::write(std::size_t, const std::byte*, std::size_t) noexcept { return false; }
bool SharedPages::show_at(std::byte*) const noexcept { return false; }

#endif

}  // namespace sabiyarn
