#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/bindings.hpp"
#include "core/kernels/attention.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings {

namespace {

using FloatArray = py::array_t<float, py::array::c_style>;
using LengthArray = py::array_t<std::int32_t, py::array::c_style>;

std::string shape_of(const py::array& array) {
  std::string result = "[";
  for (py::ssize_t i = 0; i < array.ndim(); ++i)
    result += (i > 0 ? ", " : "") + std::to_string(array.shape(i));
  return result + "]";
}

KvDtype cache_dtype(const py::array& cache) {
  const char kind = cache.dtype().kind();
  const py::ssize_t bytes = cache.itemsize();
  if (kind == 'f' && bytes == 2) return KvDtype::kFloat16;
  if (kind == 'f' && bytes == 4) return KvDtype::kFloat32;
  if (kind == 'i' && bytes == 1) return KvDtype::kInt8;
  throw std::invalid_argument("keys are " + py::cast<std::string>(py::str(py::object(cache.dtype()))) +
                              "; a cache is float16, float32 or int8");
}

std::byte* writable(py::array& cache, const char* name) {
  if ((cache.flags() & py::array::c_style) == 0) {
    throw std::invalid_argument(std::string(name) + " must be in C order: they are changed in place");
  }
  return static_cast<std::byte*>(cache.mutable_data());  // throws where the array is read-only
}

const float* scale_of(const std::optional<FloatArray>& scale, const char* name, KvDtype dtype,
                      const AttentionShape& shape) {
  if (dtype != KvDtype::kInt8) {
    if (scale)
      throw std::invalid_argument(std::string(name) + " is given, but only an int8 cache has scales");
    return nullptr;
  }
  if (!scale) throw std::invalid_argument(std::string(name) + " is missing: an int8 cache needs it");
  if (scale->ndim() != 2 || scale->shape(0) != shape.heads || scale->shape(1) != shape.head_dim) {
    throw std::invalid_argument(std::string(name) + " has shape " + shape_of(*scale) + "; it must be [" +
                                std::to_string(shape.heads) + ", " + std::to_string(shape.head_dim) + "]");
  }
  return scale->data();
}

const AttentionKernels& find_kernels(const std::string& name) {
  std::string usable;
  for (const AttentionKernels* kernels : attention_kernels()) {
    if (name == kernels->name) return *kernels;
    usable += (usable.empty() ? "'" : ", '") + std::string(kernels->name) + "'";
  }
  throw std::invalid_argument("kernels is '" + name + "'; this CPU has " + usable);
}

AttentionShape checked_shape(const FloatArray& qkv, const py::array& keys, const py::array& values,
                             const LengthArray& last) {
  if (keys.ndim() != 4 || keys.shape(3) < 8 || keys.shape(3) % 8 != 0) {
    throw std::invalid_argument(
        "keys have shape " + shape_of(keys) +
        "; it must be [rows, heads, capacity, head_dim] with a head_dim of 8, 16, 24, ...");
  }
  if (!std::equal(keys.shape(), keys.shape() + 4, values.shape(), values.shape() + values.ndim()) ||
      !keys.dtype().is(values.dtype())) {
    throw std::invalid_argument("values have shape " + shape_of(values) +
                                "; their shape and dtype must be those of the "
                                "keys, whose shape is " +
                                shape_of(keys));
  }
  const AttentionShape shape{keys.shape(0), qkv.ndim() == 5 ? qkv.shape(1) : 0, keys.shape(1), keys.shape(3),
                             keys.shape(2)};
  if (qkv.ndim() != 5 || qkv.shape(0) != shape.rows || qkv.shape(1) < 1 || qkv.shape(2) != 3 ||
      qkv.shape(3) != shape.heads || qkv.shape(4) != shape.head_dim) {
    throw std::invalid_argument("qkv has shape " + shape_of(qkv) +
                                "; it must be [rows, tokens, 3, heads, head_dim] with those of the keys, " +
                                shape_of(keys));
  }
  if (last.ndim() != 1 || last.shape(0) != shape.rows) {
    throw std::invalid_argument("last has shape " + shape_of(last) + "; it must be [" +
                                std::to_string(shape.rows) + "]");
  }
  for (std::int64_t row = 0; row < shape.rows; ++row) {
    const std::int64_t newest = last.data()[row];
    if (newest < shape.tokens - 1 || newest >= shape.capacity) {
      throw std::invalid_argument(
          "last of row " + std::to_string(row) + " is " + std::to_string(newest) + "; with " +
          std::to_string(shape.tokens) + " new tokens and a capacity of " + std::to_string(shape.capacity) +
          " it must be " + std::to_string(shape.tokens - 1) + " to " + std::to_string(shape.capacity - 1));
    }
  }
  return shape;
}

}  // namespace

void register_attention(py::module_& module) {
  module.def(
      "attention_kernels",
      [] {
        std::vector<std::string> names;
        for (const AttentionKernels* kernels : attention_kernels()) names.emplace_back(kernels->name);
        return names;
      },
      "Instruction sets of this CPU that `attention` is written for, the best first.");

  module.def(
      "attention",
      [](const FloatArray& qkv, py::array keys, py::array values, const LengthArray& last,
         const std::string& kernel_set, const std::optional<FloatArray>& key_scale,
         const std::optional<FloatArray>& value_scale) {
        const KvDtype dtype = cache_dtype(keys);
        const AttentionShape shape = checked_shape(qkv, keys, values, last);
        const AttentionKernels& kernels = find_kernels(kernel_set);
        FloatArray result(std::vector<std::int64_t>{shape.rows, shape.tokens, shape.heads, shape.head_dim});
        const AttentionInput input{shape,
                                   qkv.data(),
                                   writable(keys, "keys"),
                                   writable(values, "values"),
                                   dtype,
                                   last.data(),
                                   scale_of(key_scale, "key_scale", dtype, shape),
                                   scale_of(value_scale, "value_scale", dtype, shape),
                                   result.mutable_data()};
        {
          py::gil_scoped_release release;
          std::vector<float> scratch(attention_scratch(shape.head_dim));
          for (std::int64_t row = 0; row < shape.rows; ++row) {
            for (std::int64_t head = 0; head < shape.heads; ++head) {
              kernels.append(input, row, head);
              for (std::int64_t first = 0; first < shape.tokens; first += kAttentionQueries) {
                const std::int64_t end = std::min(first + kAttentionQueries, shape.tokens);
                kernels.attend(input, row, head, first, end, scratch.data());
              }
            }
          }
        }
        return result;
      },
      py::arg("qkv").noconvert(), py::arg("keys").noconvert(), py::arg("values").noconvert(),
      py::arg("last").noconvert(), py::kw_only(), py::arg("kernels"),
      py::arg("key_scale").noconvert() = py::none(), py::arg("value_scale").noconvert() = py::none(),
      "Causal attention of new tokens, qkv float32 [rows, tokens, 3, heads, head_dim], over a cache.\n\n"
      "keys and values, float16, float32 or int8 [rows, heads, capacity, head_dim], take the new ones in "
      "place; last\n"
      "(int32 [rows]) is the slot of each row's newest token. key_scale and value_scale, float32 [heads, "
      "head_dim],\n"
      "belong to int8. kernels is one of attention_kernels(). Returns float32 [rows, tokens, heads, "
      "head_dim].");
}

}  // namespace sabiyarn::bindings
