// csrc/core/kernels/linear_dot_product.cpp - dot products of bytes with Armv8.2's sdot: Cortex-A55, A76 (Pi 5) and
// later.
#include "core/kernels/linear_sets.hpp"

#if defined(__aarch64__)

#include "core/simd/dispatched.hpp"

#define SABIYARN_KERNEL SABIYARN_DISPATCHED("arch=armv8.2-a+dotprod")

#include "core/kernels/linear_sdot.hpp"

namespace sabiyarn {
namespace {

constexpr int kRowsAtOnce = 8;  // 16 sums, 8 registers of weights, the codes of a row: 25 of 32
constexpr int kRowsWoven = 1;

template <int kRows, int kTiles>
[[gnu::always_inline]] SABIYARN_KERNEL inline void byte_sums(
    const std::byte* weights, std::ptrdiff_t, const ActivationBlock& rows,
    EightInts (&result)[std::size_t{kRows}][std::size_t{kTiles}]) noexcept {
  sdot_byte_sums<kRows>(weights, rows, result);
}

template <int kRows, int kTiles>
[[gnu::always_inline]] SABIYARN_KERNEL inline void nibble_sums(
    const std::byte* weights, std::ptrdiff_t, const ActivationBlock& rows,
    EightInts (&result)[std::size_t{kRows}][std::size_t{kTiles}]) noexcept {
  sdot_nibble_sums<kRows>(weights, rows, result);
}

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/linear_kernel.hpp"

namespace sabiyarn {
const LinearKernels kLinearDotProduct = {"dot_product", normalize, round_row, multiply,
                                         multiply_floats_plain};
}  // namespace sabiyarn

#endif
