#include "core/kernels/linear.hpp"

#include <array>

#include "core/kernels/linear_sets.hpp"
#include "core/simd/instruction_sets.hpp"

namespace sabiyarn {

void QuantizedActivations::resize(std::int64_t num_rows, std::int64_t width, std::int64_t block) {
  rows = num_rows;
  inputs = width;
  blocks = width / block;
  resize_anew(codes, static_cast<std::size_t>((rows + rows % 2) * inputs));  // a pair may lack its second row
  resize_anew(sums, static_cast<std::size_t>(rows * blocks));
  resize_anew(corrections, static_cast<std::size_t>(rows * inputs / kSubBlock * 2));
  resize_anew(scales, sums.size());
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
