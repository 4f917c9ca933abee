#include <pybind11/numpy.h>

#include "bindings/bindings.hpp"
#include "core/kernels/memory_read.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings {

void register_memory_read(py::module_& module) {
  module.def(
      "exclusive_or",
      [](const py::array_t<std::uint64_t, py::array::c_style>& words) {
        const std::uint64_t* data = words.data();
        const auto count = static_cast<std::size_t>(words.size());
        py::gil_scoped_release release;  // several threads read at once
        return exclusive_or(data, count);
      },
      py::arg("words").noconvert(),
      "Return the exclusive or of all words (uint64, any shape), read once in order.");
}

}  // namespace sabiyarn::bindings
