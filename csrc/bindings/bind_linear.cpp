#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/bindings.hpp"
#include "core/kernels/linear.hpp"
#include "core/simd/gelu.hpp"
#include "core/simd/lanes.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings {

namespace {

using FloatArray = py::array_t<float, py::array::c_style>;
using ByteArray = py::array_t<std::uint8_t, py::array::c_style>;
using Shape = std::vector<std::int64_t>;

std::string text(const Shape& shape) {
  std::string result = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) result += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return result + "]";
}

const float* data_of(const std::optional<FloatArray>& array, const char* name, const Shape& expected) {
  if (!array) return nullptr;
  const Shape given(array->shape(), array->shape() + array->ndim());
  if (given != expected) {
    throw std::invalid_argument(std::string(name) + " has shape " + text(given) + "; it must be " +
                                text(expected));
  }
  return array->data();
}

TiledMatrix tiled_matrix(const ByteArray& weights, std::int64_t outputs, std::int64_t inputs,
                         std::int64_t block_size, std::int64_t bits) {
  constexpr std::int64_t most = std::int64_t{1} << 31;  // far from overflow when multiplied with each other
  if (outputs < 1 || outputs > most || inputs < 1 || inputs > most) {
    throw std::invalid_argument("the weights are [" + std::to_string(outputs) + ", " +
                                std::to_string(inputs) + "]; outputs and inputs must be 1 to 2^31");
  }
  if (bits != 4 && bits != 8) {
    throw std::invalid_argument("bits is " + std::to_string(bits) + "; it must be 4 or 8");
  }
  if (block_size < 8 || block_size % 8 != 0 || inputs % block_size != 0) {
    throw std::invalid_argument("block_size is " + std::to_string(block_size) +
                                "; it must be a multiple of 8 that divides the " + std::to_string(inputs) +
                                " inputs");
  }
  const TiledMatrix matrix{reinterpret_cast<const std::byte*>(weights.data()), outputs, inputs, block_size,
                           bits};
  if (static_cast<std::size_t>(weights.size()) != matrix.nbytes()) {
    throw std::invalid_argument("the weights have " + std::to_string(weights.size()) + " bytes; [" +
                                std::to_string(outputs) + ", " + std::to_string(inputs) + "] with " +
                                std::to_string(bits) + " bits in blocks of " + std::to_string(block_size) +
                                " take " + std::to_string(matrix.nbytes()));
  }
  return matrix;
}

const LinearKernels& find_kernels(const std::string& name) {
  std::string usable;
  for (const LinearKernels* kernels : linear_kernels()) {
    if (name == kernels->name) return *kernels;
    usable += (usable.empty() ? "'" : ", '") + std::string(kernels->name) + "'";
  }
  throw std::invalid_argument("kernels is '" + name + "'; this CPU has " + usable);
}

}  // namespace

void register_linear(py::module_& module) {
  module.def(
      "linear_kernels",
      [] {
        std::vector<std::string> names;
        for (const LinearKernels* kernels : linear_kernels()) names.emplace_back(kernels->name);
        return names;
      },
      "Instruction sets of this CPU that `linear` is written for, the best first.");

  module.def(
      "linear",
      [](const FloatArray& x, const ByteArray& weights, std::int64_t outputs, std::int64_t block_size,
         std::int64_t bits, const std::string& kernel_set, const std::optional<FloatArray>& bias,
         const std::optional<FloatArray>& residual, const std::optional<FloatArray>& norm_scale,
         const std::optional<FloatArray>& norm_bias, bool gelu) {
        if (x.ndim() != 2) {
          throw std::invalid_argument("x has " + std::to_string(x.ndim()) +
                                      " dimensions; it must have two: [rows, inputs]");
        }
        const std::int64_t rows = x.shape(0), inputs = x.shape(1);
        const TiledMatrix matrix = tiled_matrix(weights, outputs, inputs, block_size, bits);
        const LinearKernels& kernels = find_kernels(kernel_set);
        if (norm_bias && !norm_scale) throw std::invalid_argument("norm_bias is given without norm_scale");
        const Norm norm{data_of(norm_scale, "norm_scale", {inputs}),
                        data_of(norm_bias, "norm_bias", {inputs})};
        FloatArray result(Shape{rows, outputs});
        const LinearOutput output{result.mutable_data(), data_of(bias, "bias", {outputs}),
                                  data_of(residual, "residual", {rows, outputs}), gelu};
        const float* values = x.data();
        {
          py::gil_scoped_release release;
          QuantizedActivations rounded;
          rounded.resize(rows, inputs, block_size);
          std::vector<float> normalized(static_cast<std::size_t>(inputs));
          for (std::int64_t row = 0; row < rows; ++row) {
            const float* source = values + row * inputs;
            if (norm.scale != nullptr) {
              kernels.normalize(source, inputs, norm, normalized.data());
              source = normalized.data();
            }
            kernels.round_row(source, row, rounded);
          }
          kernels.multiply(matrix, rounded, 0, matrix.tiles(), output);
        }
        return result;
      },
      py::arg("x").noconvert(), py::arg("weights").noconvert(), py::kw_only(), py::arg("outputs"),
      py::arg("block_size"), py::arg("bits"), py::arg("kernels"), py::arg("bias").noconvert() = py::none(),
      py::arg("residual").noconvert() = py::none(), py::arg("norm_scale").noconvert() = py::none(),
      py::arg("norm_bias").noconvert() = py::none(), py::arg("gelu") = false,
      "float32 [rows, inputs] by tiled weights (uint8, csrc/core/kernels/tiled_matrix.hpp) -> float32 [rows, "
      "outputs].\n\n"
      "norm_scale and norm_bias [inputs] are of a layer norm before the product; bias [outputs], GELU and "
      "residual\n"
      "[rows, outputs] come after it, in this order. kernels is one of linear_kernels().");

  module.def(
      "read_row",
      [](const ByteArray& weights, std::int64_t row, std::int64_t outputs, std::int64_t inputs,
         std::int64_t block_size, std::int64_t bits) {
        const TiledMatrix matrix = tiled_matrix(weights, outputs, inputs, block_size, bits);
        if (row < 0 || row >= outputs) {
          throw std::out_of_range("row " + std::to_string(row) + " is not one of the " +
                                  std::to_string(outputs) + " rows");
        }
        FloatArray result(Shape{inputs});
        read_row(matrix, row, result.mutable_data());
        return result;
      },
      py::arg("weights").noconvert(), py::arg("row"), py::kw_only(), py::arg("outputs"), py::arg("inputs"),
      py::arg("block_size"), py::arg("bits"),
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

}  // namespace sabiyarn::bindings
