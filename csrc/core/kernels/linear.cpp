#include "core/kernels/linear.hpp"

#include <array>

#include "core/kernels/linear_sets.hpp"
#include "core/simd/instruction_sets.hpp"

namespace sabiyarn {

void QuantizedBuffer::resize(std::int64_t rows, std::int64_t width, std::int64_t block) {
  inputs_ = width;
  blocks_ = width / block;
  resize_anew(codes_, static_cast<std::size_t>(rows * inputs_));
  resize_anew(sums_, static_cast<std::size_t>(rows * blocks_));
  resize_anew(corrections_, static_cast<std::size_t>(rows * inputs_ / kSubBlock * 2));
  resize_anew(scales_, sums_.size());
}

QuantizedActivations QuantizedBuffer::rows(std::int64_t first, std::int64_t count) noexcept {
  return {count,
          inputs_,
          blocks_,
          codes_.data() + first * inputs_,
          sums_.data() + first * blocks_,
          corrections_.data() + first * inputs_ / kSubBlock * 2,
          scales_.data() + first * blocks_};
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
      if (has_avx2_f16c_fma()) {  // for the products with floats, which all three share
        add(has_avx512_vnni(), kLinearAvx512Vnni);
        add(has_avx_vnni(), kLinearAvxVnni);
        add(true, kLinearAvx2);
      }
#elif defined(__aarch64__)
      add(has_i8mm(), kLinearI8mm);
      add(has_dot_product(), kLinearDotProduct);
#endif
      add(true, kLinearPlain);
    }
  };
  static const Usable usable;
  return {usable.kernels.data(), usable.count};
}

}  // namespace sabiyarn
