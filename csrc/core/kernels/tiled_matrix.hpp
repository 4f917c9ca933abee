// csrc/core/kernels/tiled_matrix.hpp - how a matrix [outputs, inputs] of weights lies in memory.
//
// A product with one token reads every weight once, so its time is the time of reading them. Reading several
// rows side by side defeats the hardware's prefetching: eight rows at once run at half the speed of one
// (measured on Zen 3). So eight outputs are woven into a tile that is read from its first byte to its last:
//
//   tile, floats:    outputs 8t ... 8t + 7, one input after another: 8 values of the stored type each
//
//   tile, 8 bits:    outputs 8t ... 8t + 7, one block of inputs after another
//   block, 8 bits:   8 scales (float32), then the codes in groups of 32 bytes
//   group, 8 bits:   4 codes (int8) of each output, of the inputs 4g ... 4g + 3:    weight = scale * code
//
//   tile, 4 bits:    8 row scales (float32) of the outputs 8t ... 8t + 7, then one block of inputs after another
//   block, 4 bits:   8 scales (int8) of each 16 inputs, then the codes in groups of 32 bytes
//   group, 4 bits:   4 bytes of each output; their low halves are the inputs 8g ... 8g + 3, their high halves
//                    8g + 4 ... 8g + 7:               weight = row_scale * (scale * kFourBitTable[code])
//
// Four codes of one output are what one lane of a dot product instruction takes (VNNI, sdot). A block is what the
// rows that meet it are rounded by (quantized_activations.hpp). Outputs behind the last one fill its tile up with
// zeros. sabiyarn_edge/export/tiles.py writes this.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sabiyarn {

inline constexpr std::int64_t kTileOutputs = 8;
inline constexpr std::size_t kGroupBytes = 32;
inline constexpr std::int64_t kSubBlock = 16;  // inputs: weights of 4 bits that share a scale

// Trained weights are near 0 more often than far from it, so the steps are finer there. Weights that reach further on
// the other side have a negative scale. No entry is 0: what is 0 has the scale 0. Plus 32, an entry is an unsigned
// byte, and 4 products with codes of activations fit into 16 bits: 4 * 60 * 127.
inline constexpr std::int8_t kFourBitTable[16] = {-31, -22, -17, -13, -10, -7, -4, -1,
                                                  1,   3,   6,   9,   12,  16, 21, 28};

// Numbered as ONNX numbers its element types (TensorProto.DataType).
enum class WeightType : std::int64_t { kFloat32 = 1, kInt8 = 3, kFloat16 = 10, kBfloat16 = 16, kInt4 = 22 };

constexpr bool is_float(WeightType type) noexcept {
  return type == WeightType::kFloat32 || type == WeightType::kFloat16 || type == WeightType::kBfloat16;
}
constexpr bool has_blocks(WeightType type) noexcept {
  return type == WeightType::kInt8 || type == WeightType::kInt4;
}
constexpr std::int64_t bits_of(WeightType type) noexcept {
  switch (type) {
    case WeightType::kFloat32:
      return 32;
    case WeightType::kFloat16:
    case WeightType::kBfloat16:
      return 16;
    case WeightType::kInt8:
      return 8;
    case WeightType::kInt4:
      return 4;
  }
  return 0;
}

struct TiledMatrix {
  const std::byte* data;
  std::int64_t outputs;
  std::int64_t inputs;  // a multiple of 8, and of block
  WeightType type;
  std::int64_t block;  // inputs that are rounded together, a multiple of 16; 0 for floats, which have none

  // Throws std::invalid_argument if there is no such matrix. Sizes of a checked one never overflow.
  void check_shape() const;
  // Throws std::invalid_argument if `size` is not nbytes().
  void check_size(std::size_t size) const;

  std::int64_t tiles() const noexcept { return (outputs + kTileOutputs - 1) / kTileOutputs; }
  std::int64_t blocks() const noexcept { return block == 0 ? 1 : inputs / block; }
  // Before the blocks of a tile, and before the codes of a block.
  std::size_t tile_header_bytes() const noexcept {
    return type == WeightType::kInt4 ? kTileOutputs * sizeof(float) : 0;
  }
  std::size_t block_header_bytes() const noexcept {
    if (is_float(type)) return 0;
    return kTileOutputs *
           (type == WeightType::kInt8 ? sizeof(float) : static_cast<std::size_t>(block / kSubBlock));
  }
  std::size_t block_bytes() const noexcept {
    return block_header_bytes() +
           static_cast<std::size_t>(kTileOutputs * (block == 0 ? inputs : block) * bits_of(type) / 8);
  }
  std::size_t tile_bytes() const noexcept {
    return tile_header_bytes() + static_cast<std::size_t>(blocks()) * block_bytes();
  }
  std::size_t nbytes() const noexcept { return static_cast<std::size_t>(tiles()) * tile_bytes(); }
  const std::byte* tile(std::int64_t index) const noexcept {
    return data + static_cast<std::size_t>(index) * tile_bytes();
  }
};

// target[k] = weights[row, k] in float32: one row of an embedding.
void read_row(const TiledMatrix& weights, std::int64_t row, float* target) noexcept;

}  // namespace sabiyarn
