#include "core/kernels/tiled_matrix.hpp"

#include <bit>
#include <cstring>
#include <stdexcept>
#include <string>

#include "core/simd/half.hpp"

namespace sabiyarn {

namespace {

// outputs * inputs * 4 bytes is then at most 2^58.
constexpr std::int64_t kMostOutputsOrInputs = std::int64_t{1} << 28;

std::string shape_of(const TiledMatrix& matrix) {
  return "[" + std::to_string(matrix.outputs) + ", " + std::to_string(matrix.inputs) + "]";
}

template <typename T>
T read(const std::byte* source) noexcept {
  T value;
  std::memcpy(&value, source, sizeof value);
  return value;
}

float read_float(const std::byte* values, WeightType type, std::size_t index) noexcept {
  switch (type) {
    case WeightType::kFloat16:
      return half_to_float(read<half_bits>(values + 2 * index));
    case WeightType::kBfloat16:
      return std::bit_cast<float>(std::uint32_t{read<std::uint16_t>(values + 2 * index)} << 16);
    default:
      return read<float>(values + 4 * index);
  }
}

}  // namespace

void TiledMatrix::check_shape() const {
  if (bits_of(type) == 0) {
    throw std::invalid_argument(
        "weight_type is " + std::to_string(static_cast<std::int64_t>(type)) +
        "; it must be 1 (float32), 3 (int8), 10 (float16), 16 (bfloat16) or 22 (int4)");
  }
  if (outputs < 1 || outputs > kMostOutputsOrInputs || inputs < 8 || inputs > kMostOutputsOrInputs ||
      inputs % 8 != 0) {
    throw std::invalid_argument("the weights are " + shape_of(*this) +
                                "; outputs must be 1 to 2^28, and inputs a multiple of 8 up to 2^28");
  }
  if (is_float(type) ? block != 0 : block < kSubBlock || block % kSubBlock != 0 || inputs % block != 0) {
    throw std::invalid_argument(
        "block_size is " + std::to_string(block) + "; it must be " +
        (is_float(type) ? "0: float weights have no blocks"
                        : "a multiple of 16 that divides the " + std::to_string(inputs) + " inputs"));
  }
}

void TiledMatrix::check_size(std::size_t size) const {
  if (size == nbytes()) return;
  throw std::invalid_argument("the weights have " + std::to_string(size) + " bytes; " + shape_of(*this) +
                              " with " + std::to_string(bits_of(type)) + " bits" +
                              (block == 0 ? std::string() : " in blocks of " + std::to_string(block)) +
                              " take " + std::to_string(nbytes()));
}

void read_row(const TiledMatrix& weights, std::int64_t row, float* target) noexcept {
  const std::byte* source = weights.tile(row / kTileOutputs);
  const auto lane = static_cast<std::size_t>(row % kTileOutputs);
  if (is_float(weights.type)) {
    for (std::int64_t k = 0; k < weights.inputs; ++k) {
      target[k] = read_float(source, weights.type, static_cast<std::size_t>(k * kTileOutputs) + lane);
    }
    return;
  }
  const bool bytes = weights.type == WeightType::kInt8;
  const float row_scale = bytes ? 1.0f : read<float>(source + 4 * lane);
  source += weights.tile_header_bytes();
  for (std::int64_t b = 0; b < weights.blocks();
       ++b, source += weights.block_bytes(), target += weights.block) {
    const std::byte* codes = source + weights.block_header_bytes() + 4 * lane;
    for (std::int64_t k = 0; k < weights.block; ++k) {
      const auto at = static_cast<std::size_t>(k);
      if (bytes) {
        const auto code = read<std::int8_t>(codes + at / 4 * kGroupBytes + at % 4);
        target[k] = read<float>(source + 4 * lane) * static_cast<float>(code);
      } else {
        const auto both = read<std::uint8_t>(codes + at / 8 * kGroupBytes + at % 4);
        const auto scale = read<std::int8_t>(source + at / kSubBlock * kTileOutputs + lane);
        const int value = kFourBitTable[at % 8 < 4 ? both & 15 : both >> 4];
        target[k] = row_scale * static_cast<float>(scale * value);
      }
    }
  }
}

}  // namespace sabiyarn
