// tests/native/count_allocations.hpp - replaces operator new of the test program by one that counts.
#pragma once

#include <cstddef>
#include <cstdlib>
#include <new>

inline std::size_t allocations = 0;

inline void* counted(std::size_t size) {
  ++allocations;
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}

// Replacements may not be inline: include this in one source file of a program. GCC inlines them all the same, and then
// warns of new and delete that do not match, where it does so with one of the two.
[[gnu::noinline]] void* operator new(std::size_t size) { return counted(size); }
[[gnu::noinline]] void* operator new[](std::size_t size) { return counted(size); }
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete[](void* memory, std::size_t) noexcept { std::free(memory); }
