#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings/bindings.hpp"
#include "core/kernels/linear.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings {

void register_linear(py::module_& module) {
  module.def(
      "linear_kernels",
      [] {
        std::vector<std::string> names;
        for (const LinearKernels* kernels : linear_kernels()) names.emplace_back(kernels->name);
        return names;
      },
      "Instruction sets of this CPU that `linear` is written for, the best first.");
}

}  // namespace sabiyarn::bindings
