// csrc/core/kernels/quantized_activations.hpp - rows of activations as 8-bit codes, block by block like the weights they meet.
//
//   activation ~ scale * code,   code in -127 ... 127,   scale = largest magnitude of the block / 127
//
// Rows are rounded on their own, so what a row gives does not depend on what is computed beside it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace sabiyarn {

// Makes room for `size` values, which are then any. Growing by resize() alone would hold the old ones beside the new, to
// copy them, and reserve twice as much.
template <typename T>
void resize_anew(std::vector<T>& values, std::size_t size) {
  if (size > values.capacity()) values = std::vector<T>();
  values.resize(size);
}

// The rows of one product, in the memory of a QuantizedBuffer.
struct QuantizedActivations {
  std::int64_t rows, inputs, blocks;
  // [rows, inputs]. Sets whose instructions multiply two rows at once weave several rows
  // in pairs: eight codes of the first, eight of the second, the next eight of the first, ...
  std::int8_t* codes;
  std::int32_t* sums;  // [rows, blocks]: of each block's codes
  // [rows, inputs / 16, 2]: instructions that take unsigned by signed bytes multiply the codes with an entry of
  // kFourBitTable plus 32. Of each 16 codes, this is -32 times the sum of those whose index mod 4 is 0 or 1, and of
  // those where it is 2 or 3: what pairs of neighbouring products have too much. 16 bits hold 32 * 8 * 127.
  std::int16_t* corrections;
  float* scales;  // [rows, blocks]
};

class QuantizedBuffer {
 public:
  // The rows of a buffer that a product of so many needs: a woven pair may lack its second row.
  static constexpr std::int64_t room(std::int64_t rows) noexcept { return rows > 1 ? rows + rows % 2 : rows; }

  // Makes room for so many rows, which are then any. Memory is kept for the next call.
  void resize(std::int64_t rows, std::int64_t width, std::int64_t block);
  // Those of a product, from row `first` on.
  QuantizedActivations rows(std::int64_t first, std::int64_t count) noexcept;

 private:
  std::int64_t inputs_ = 0, blocks_ = 0;
  std::vector<std::int8_t> codes_;
  std::vector<std::int32_t> sums_;
  std::vector<std::int16_t> corrections_;
  std::vector<float> scales_;
};

// One block of inputs of consecutive rows.
struct ActivationBlock {
  const std::int8_t* codes;         // of the first row
  std::int64_t code_stride;         // from a row's codes to those of the next
  const std::int32_t* sum;          // of the first row's codes
  std::int64_t sum_stride;          // from a row's sum to that of the next
  const std::int16_t* corrections;  // of the first row
  std::int64_t correction_stride;   // from a row's corrections to those of the next
  std::int64_t inputs;              // a multiple of 16
};

}  // namespace sabiyarn
