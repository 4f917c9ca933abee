#include "core/kernels/attention.hpp"

#include <array>

#include "core/kernels/attention_sets.hpp"
#include "core/simd/instruction_sets.hpp"

namespace sabiyarn {

std::size_t attention_scratch(std::int64_t head_dim) noexcept {
  constexpr std::int64_t keys = 64;
  return static_cast<std::size_t>((2 * kAttentionQueries + 2 * keys) * head_dim + kAttentionQueries * keys);
}

std::span<const AttentionKernels* const> attention_kernels() noexcept {
#if defined(__x86_64__)
  static constexpr std::array<const AttentionKernels*, 2> all = {&kAttentionAvx2, &kAttentionPlain};
  static const std::size_t skipped = has_avx2_f16c_fma() ? 0 : 1;
  return std::span(all).subspan(skipped);
#else
  static constexpr std::array<const AttentionKernels*, 1> all = {&kAttentionPlain};
  return all;
#endif
}

}  // namespace sabiyarn
