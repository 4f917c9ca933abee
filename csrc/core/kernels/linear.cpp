#include "core/kernels/linear.hpp"

#include <array>
#include <cstring>

#include "core/kernels/linear_sets.hpp"
#include "core/simd/instruction_sets.hpp"

namespace sabiyarn {

void QuantizedActivations::resize(std::int64_t num_rows, std::int64_t width, std::int64_t block) {
  rows = num_rows;
  inputs = width;
  blocks = width / block;
  codes.resize(static_cast<std::size_t>(rows * inputs));
  sums.resize(static_cast<std::size_t>(rows * blocks));
  scales.resize(sums.size());
  scaled_sums.resize(sums.size());
}

std::span<const LinearKernels* const> linear_kernels() noexcept {
  struct Usable {
    std::array<const LinearKernels*, 4> kernels{};
    std::size_t count = 0;
    void add(bool runs, const LinearKernels& set) {
      if (runs) kernels[count++] = &set;
    }
    Usable() {
#if defined(__x86_64__)
      add(has_avx512_vnni(), kLinearAvx512Vnni);
      add(has_avx_vnni(), kLinearAvxVnni);
      add(has_avx2(), kLinearAvx2);
#elif defined(__aarch64__)
      add(has_dot_product(), kLinearDotProduct);
#endif
      add(true, kLinearPlain);
    }
  };
  static const Usable usable;
  return {usable.kernels.data(), usable.count};
}

void read_row(const TiledMatrix& weights, std::int64_t row, float* target) noexcept {
  const std::byte* source = weights.tile(row / kTileOutputs);
  const auto lane = static_cast<std::size_t>(row % kTileOutputs);
  const auto number = [&source, lane](std::size_t of) {
    float value;
    std::memcpy(&value, source + (of * kTileOutputs + lane) * sizeof value, sizeof value);
    return value;
  };
  for (std::int64_t b = 0; b < weights.blocks();
       ++b, source += weights.block_bytes(), target += weights.block) {
    const float scale = number(0), offset = weights.bits == 4 ? number(1) : 0.0f;
    const auto* codes = reinterpret_cast<const std::uint8_t*>(source + weights.header_bytes()) + 4 * lane;
    for (std::int64_t k = 0; k < weights.block; ++k) {
      if (weights.bits == 8) {
        const std::uint8_t code = codes[k / 4 * static_cast<std::int64_t>(kGroupBytes) + k % 4];
        target[k] = scale * static_cast<float>(static_cast<std::int8_t>(code));
      } else {
        const std::uint8_t both = codes[k / 8 * static_cast<std::int64_t>(kGroupBytes) + k % 4];
        target[k] = scale * static_cast<float>(k % 8 < 4 ? both & 15 : both >> 4) + offset;
      }
    }
  }
}

}  // namespace sabiyarn
