// csrc/core/kernels/tiled_matrix.hpp - how a matrix [outputs, inputs] of 8-bit or 4-bit weights lies in memory.
//
// A product with one token reads every weight once, so its time is the time of reading them. Reading several
// rows side by side defeats the hardware's prefetching: eight rows at once run at half the speed of one
// (measured on Zen 3). So eight outputs are woven into a tile that is read from its first byte to its last:
//
//   tile:  outputs 8t ... 8t + 7, one block of inputs after another
//   block: 8 scales (float32), at 4 bits also 8 offsets (float32), then the codes in groups of 32 bytes
//   group, 8 bits: 4 codes (int8) of each output, of the inputs 4g ... 4g + 3:    weight = scale * code
//   group, 4 bits: 4 bytes of each output; their low halves are the inputs 8g ... 8g + 3, their high halves
//                  8g + 4 ... 8g + 7:                                      weight = scale * code + offset
//
// Four codes of one output are what one lane of a dot product instruction takes (VNNI, sdot). Outputs behind
// the last one fill its tile up with zeros. sabiyarn_edge/export/tiles.py writes this.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sabiyarn {

inline constexpr std::int64_t kTileOutputs = 8;
inline constexpr std::size_t kGroupBytes = 32;

struct TiledMatrix {
  const std::byte* data;
  std::int64_t outputs;
  std::int64_t inputs;  // a multiple of block
  std::int64_t block;   // inputs that share a scale; a multiple of 8
  std::int64_t bits;    // 8 or 4

  std::int64_t tiles() const noexcept { return (outputs + kTileOutputs - 1) / kTileOutputs; }
  std::int64_t blocks() const noexcept { return inputs / block; }
  std::size_t header_bytes() const noexcept { return kTileOutputs * sizeof(float) * (bits == 4 ? 2 : 1); }
  std::size_t block_bytes() const noexcept {
    return header_bytes() + static_cast<std::size_t>(kTileOutputs * block * bits / 8);
  }
  std::size_t tile_bytes() const noexcept { return static_cast<std::size_t>(blocks()) * block_bytes(); }
  std::size_t nbytes() const noexcept { return static_cast<std::size_t>(tiles()) * tile_bytes(); }
  const std::byte* tile(std::int64_t index) const noexcept {
    return data + static_cast<std::size_t>(index) * tile_bytes();
  }
};

}  // namespace sabiyarn
