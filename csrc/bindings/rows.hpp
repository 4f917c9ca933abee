// csrc/bindings/rows.hpp - one row of float32 scores that a function of the core changes in place.
#pragma once

#include <pybind11/numpy.h>

#include <span>
#include <stdexcept>

namespace sabiyarn::bindings {

using RowArray = pybind11::array_t<float, pybind11::array::c_style>;

inline std::span<float> as_row(RowArray& scores) {
  if (scores.ndim() != 1 || scores.size() == 0)
    throw std::invalid_argument("scores must be one row, not empty");
  return {scores.mutable_data(), static_cast<std::size_t>(scores.size())};
}

}  // namespace sabiyarn::bindings
