#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/shapes.hpp"
#include "bindings/testing/kernel_sets.hpp"
#include "bindings/testing/testing.hpp"
#include "core/kernels/linear.hpp"
#include "core/simd/gelu.hpp"
#include "core/simd/lanes.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings::testing {

namespace {

using FloatArray = py::array_t<float, py::array::c_style>;
using ByteArray = py::array_t<std::uint8_t, py::array::c_style>;
using Shape = std::vector<py::ssize_t>;

const float* data_of(const std::optional<FloatArray>& array, const char* name, const Shape& expected) {
  if (!array) return nullptr;
  const Shape given(array->shape(), array->shape() + array->ndim());
  if (given != expected) {
    throw std::invalid_argument(std::string(name) + " has shape " + shape_of(*array) + "; it must be " +
                                text_of(expected));
  }
  return array->data();
}

WeightType weight_type_of(const std::string& name) {
  if (name == "float32") return WeightType::kFloat32;
  if (name == "float16") return WeightType::kFloat16;
  if (name == "bfloat16") return WeightType::kBfloat16;
  if (name == "int8") return WeightType::kInt8;
  if (name == "int4") return WeightType::kInt4;
  throw std::invalid_argument("weight_type is '" + name +
                              "'; it must be float32, float16, bfloat16, int8 or int4");
}

TiledMatrix tiled_matrix(const ByteArray& weights, std::int64_t outputs, std::int64_t inputs,
                         const std::string& weight_type, std::int64_t block_size) {
  const TiledMatrix matrix{reinterpret_cast<const std::byte*>(weights.data()), outputs, inputs,
                           weight_type_of(weight_type), block_size};
  matrix.check_shape();
  matrix.check_size(static_cast<std::size_t>(weights.size()));
  return matrix;
}

}  // namespace

void register_linear(py::module_& module) {
  module.def(
      "linear",
      [](const FloatArray& x, const ByteArray& weights, std::int64_t outputs, const std::string& weight_type,
         std::int64_t block_size, const std::string& kernel_set, const std::optional<FloatArray>& bias,
         const std::optional<FloatArray>& residual, const std::optional<FloatArray>& norm_scale,
         const std::optional<FloatArray>& norm_bias, bool gelu) {
        if (x.ndim() != 2) {
          throw std::invalid_argument("x has " + std::to_string(x.ndim()) +
                                      " dimensions; it must have two: [rows, inputs]");
        }
        const std::int64_t rows = x.shape(0), inputs = x.shape(1);
        const TiledMatrix matrix = tiled_matrix(weights, outputs, inputs, weight_type, block_size);
        const LinearKernels& kernels = find_kernels(linear_kernels(), kernel_set);
        if (norm_bias && !norm_scale) throw std::invalid_argument("norm_bias is given without norm_scale");
        const Norm norm{data_of(norm_scale, "norm_scale", {inputs}),
                        data_of(norm_bias, "norm_bias", {inputs})};
        FloatArray result(Shape{rows, outputs});
        const LinearOutput output{result.mutable_data(), data_of(bias, "bias", {outputs}),
                                  data_of(residual, "residual", {rows, outputs}), gelu};
        {
          py::gil_scoped_release release;
          const bool floats = is_float(matrix.type);
          QuantizedBuffer buffer;
          if (!floats) buffer.resize(QuantizedBuffer::room(rows), inputs, block_size);
          const QuantizedActivations rounded = buffer.rows(0, rows);
          std::vector<float> normalized(norm.scale == nullptr ? 0 : static_cast<std::size_t>(rows * inputs));
          for (std::int64_t row = 0; row < rows && norm.scale != nullptr; ++row) {
            kernels.normalize(x.data() + row * inputs, inputs, norm, normalized.data() + row * inputs);
          }
          const float* values = norm.scale == nullptr ? x.data() : normalized.data();
          for (std::int64_t row = 0; row < rows && !floats; ++row) {
            kernels.round_row(values + row * inputs, row, rounded);
          }
          if (floats) {
            kernels.multiply_floats(matrix, values, rows, 0, matrix.tiles(), output);
          } else {
            kernels.multiply(matrix, rounded, 0, matrix.tiles(), output);
          }
        }
        return result;
      },
      py::arg("x").noconvert(), py::arg("weights").noconvert(), py::kw_only(), py::arg("outputs"),
      py::arg("weight_type"), py::arg("block_size") = 0, py::arg("kernels"),
      py::arg("bias").noconvert() = py::none(), py::arg("residual").noconvert() = py::none(),
      py::arg("norm_scale").noconvert() = py::none(), py::arg("norm_bias").noconvert() = py::none(),
      py::arg("gelu") = false,
      "float32 [rows, inputs] by tiled weights (uint8, csrc/core/kernels/tiled_matrix.hpp) -> float32 [rows, "
      "outputs].\n\n"
      "norm_scale and norm_bias [inputs] are of a layer norm before the product; bias [outputs], GELU and "
      "residual\n"
      "[rows, outputs] come after it, in this order. kernels is one of _core.linear_kernels().");

  module.def(
      "read_row",
      [](const ByteArray& weights, std::int64_t row, std::int64_t outputs, std::int64_t inputs,
         const std::string& weight_type, std::int64_t block_size) {
        const TiledMatrix matrix = tiled_matrix(weights, outputs, inputs, weight_type, block_size);
        if (row < 0 || row >= outputs) {
          throw std::out_of_range("row " + std::to_string(row) + " is not one of the " +
                                  std::to_string(outputs) + " rows");
        }
        FloatArray result(Shape{inputs});
        read_row(matrix, row, result.mutable_data());
        return result;
      },
      py::arg("weights").noconvert(), py::arg("row"), py::kw_only(), py::arg("outputs"), py::arg("inputs"),
      py::arg("weight_type"), py::arg("block_size") = 0,
      "One row of tiled weights [outputs, inputs] as float32 [inputs].");

  module.def(
      "gelu",
      [](const FloatArray& values) {
        FloatArray result(Shape(values.shape(), values.shape() + values.ndim()));
        const float* source = values.data();
        float* target = result.mutable_data();
        const auto count = static_cast<std::size_t>(values.size());
        {
          py::gil_scoped_release release;
          for (std::size_t i = 0; i < count; i += kLanes) {
            const std::size_t bytes = (count - i < kLanes ? count - i : kLanes) * sizeof(float);
            Floats lanes = {};
            std::memcpy(&lanes, source + i, bytes);
            gelu_in_place(lanes);
            std::memcpy(target + i, &lanes, bytes);
          }
        }
        return result;
      },
      py::arg("values").noconvert(), "The GELU that `linear` has, of float32 values of any shape.");
}

}  // namespace sabiyarn::bindings::testing
