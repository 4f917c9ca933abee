// csrc/core/kernels/memory_read.hpp - reads memory as fast as one core can, to measure what the machine's memory
// gives.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sabiyarn {

// The exclusive or of `count` words: one operation per load, so that the loads alone take time.
std::uint64_t exclusive_or(const std::uint64_t* words, std::size_t count) noexcept;

}  // namespace sabiyarn
