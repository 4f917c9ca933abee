#include <pybind11/numpy.h>

#include "bindings/testing/testing.hpp"
#include "core/simd/half.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings::testing {

void register_half(py::module_& module) {
  using FloatArray = py::array_t<float, py::array::c_style>;
  using HalfBitsArray = py::array_t<half_bits, py::array::c_style>;

  module.def(
      "float_to_half",
      [](const FloatArray& values) {
        HalfBitsArray result(std::vector<py::ssize_t>(values.shape(), values.shape() + values.ndim()));
        const float* source = values.data();
        half_bits* target = result.mutable_data();
        const auto count = static_cast<std::size_t>(values.size());
        {
          py::gil_scoped_release release;
          float_to_half(source, target, count);
        }
        return result;
      },
      py::arg("values").noconvert(),
      "Round float32 values of any shape to float16, to nearest with ties to even. Returns the bits as "
      "uint16.");

  module.def(
      "half_to_float",
      [](const HalfBitsArray& bits) {
        FloatArray result(std::vector<py::ssize_t>(bits.shape(), bits.shape() + bits.ndim()));
        const half_bits* source = bits.data();
        float* target = result.mutable_data();
        const auto count = static_cast<std::size_t>(bits.size());
        {
          py::gil_scoped_release release;
          half_to_float(source, target, count);
        }
        return result;
      },
      py::arg("bits").noconvert(), "Widen float16 bits (uint16, any shape) to float32, exactly.");

  module.def("half_conversion_path", &half_conversion_path,
             "Return the conversion path chosen for this CPU: 'f16c', 'neon' or 'scalar'.");
}

}  // namespace sabiyarn::bindings::testing
