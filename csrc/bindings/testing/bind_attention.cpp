#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings/shapes.hpp"
#include "bindings/testing/kernel_sets.hpp"
#include "bindings/testing/testing.hpp"
#include "core/kernels/attention.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings::testing {

namespace {

using FloatArray = py::array_t<float, py::array::c_style>;
using IntegerArray = py::array_t<std::int64_t, py::array::c_style>;

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

AttentionShape checked_shape(const FloatArray& qkv, const py::array& keys, const py::array& values) {
  if (keys.ndim() != 5 || keys.shape(4) != kKeyTile) {
    throw std::invalid_argument("keys have shape " + shape_of(keys) +
                                "; it must be [rows, heads, capacity / 16, head_dim, 16]");
  }
  const AttentionShape shape{keys.shape(0), keys.shape(1), keys.shape(3), keys.shape(2) * kKeyTile};
  if (values.ndim() != 4 || values.shape(0) != shape.rows || values.shape(1) != shape.heads ||
      values.shape(2) != shape.capacity || values.shape(3) != shape.head_dim ||
      !values.dtype().is(keys.dtype())) {
    throw std::invalid_argument(
        "values have shape " + shape_of(values) +
        "; it must be [rows, heads, capacity, head_dim] of the keys, and their dtype");
  }
  if (qkv.ndim() != 4 || qkv.shape(1) != 3 || qkv.shape(2) != shape.heads || qkv.shape(3) != shape.head_dim) {
    throw std::invalid_argument("qkv has shape " + shape_of(qkv) +
                                "; it must be [tokens, 3, heads, head_dim] of the keys");
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
      [](const FloatArray& qkv, py::array keys, py::array values, const IntegerArray& segments,
         std::int64_t window, std::int64_t num_sinks, const std::string& kernel_set,
         const std::optional<FloatArray>& mask, const std::optional<FloatArray>& key_scale,
         const std::optional<FloatArray>& value_scale) {
        const KvDtype dtype = cache_dtype(keys);
        const AttentionShape shape = checked_shape(qkv, keys, values);
        if (segments.ndim() != 2 || segments.shape(1) != 5) {
          throw std::invalid_argument("segments have shape " + shape_of(segments) +
                                      "; it must be [segments, 5]");
        }
        const AttentionKernels& kernels = find_kernels(attention_kernels(), kernel_set);
        AttentionInput input{shape,
                             qkv.shape(0),
                             qkv.data(),
                             writable(keys, "keys"),
                             writable(values, "values"),
                             dtype,
                             {reinterpret_cast<const AttentionSegment*>(segments.data()),
                              static_cast<std::size_t>(segments.shape(0))},
                             window,
                             num_sinks};
        if (mask) input.mask = {mask->data(), static_cast<std::size_t>(mask->size())};
        input.key_scale = scale_of(key_scale, "key_scale", dtype, shape);
        input.value_scale = scale_of(value_scale, "value_scale", dtype, shape);
        check_attention(input);
        FloatArray result(std::vector<std::int64_t>{input.tokens, shape.heads, shape.head_dim});
        input.out = result.mutable_data();
        {
          py::gil_scoped_release release;
          compute_attention(input, kernels, [](std::int64_t count, const auto& task) {
            for (std::int64_t i = 0; i < count; ++i) task(i);
          });
        }
        return result;
      },
      py::arg("qkv").noconvert(), py::arg("keys").noconvert(), py::arg("values").noconvert(),
      py::arg("segments").noconvert(), py::kw_only(), py::arg("window"), py::arg("num_sinks") = 0,
      py::arg("kernels"), py::arg("mask").noconvert() = py::none(),
      py::arg("key_scale").noconvert() = py::none(), py::arg("value_scale").noconvert() = py::none(),
      "Attention of a run's tokens, qkv float32 [tokens, 3, heads, head_dim], over a cache.\n\n"
      "keys and values, float16, float32 or int8, laid out as KvCache.buffer() shows them, take the new ones "
      "in\n"
      "place. segments, int64 [segments, 5]: (row, num_tokens, total, oldest, mask_at) of each row that the "
      "run\n"
      "appends to. A token sees `window` positions, of which num_sinks are the first. mask, float32 [m]: the "
      "masks\n"
      "of the segments that have one. key_scale and value_scale, float32 [heads, head_dim], belong to int8. "
      "kernels\n"
      "is one of attention_kernels(). Returns float32 [tokens, heads, head_dim].");
}

}  // namespace sabiyarn::bindings::testing
