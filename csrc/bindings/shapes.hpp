// csrc/bindings/shapes.hpp - an array's shape as messages name it.
#pragma once

#include <pybind11/numpy.h>

#include <span>
#include <string>

namespace sabiyarn::bindings {

inline std::string text_of(std::span<const pybind11::ssize_t> shape) {
  std::string result = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) result += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return result + "]";
}

inline std::string shape_of(const pybind11::array& array) {
  return text_of({array.shape(), static_cast<std::size_t>(array.ndim())});
}

}  // namespace sabiyarn::bindings
