// csrc/core/kernels/float_types.hpp - the stored float types, told apart by name.
#pragma once

#include <cstdint>

namespace sabiyarn {

struct Float32 {
  float value;
};
struct Float16 {
  std::uint16_t bits;
};
struct Bfloat16 {
  std::uint16_t bits;  // the upper half of a float32's
};

}  // namespace sabiyarn
