#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include "bindings/rows.hpp"
#include "bindings/testing/testing.hpp"
#include "core/selection/random.hpp"
#include "core/selection/row_math.hpp"
#include "core/simd/exact_math.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings::testing {

void register_exact_math(py::module_& module) {
  module.def(
      "philox4x32",
      [](const PhiloxCounter& counter, const PhiloxKey& key) { return philox4x32(counter, key); },
      py::arg("counter"), py::arg("key"),
      "Return one block of Philox4x32-10: four 32-bit words from a counter of four and a key of two.");
  module.def("uniform", &uniform, py::arg("seed"), py::arg("stream"), py::arg("step"), py::arg("draw") = 0,
             "Return the uniform number in [0, 1) that decoding draws at this step; a multiple of 2**-53.");

  module.def("exp_float", py::vectorize([](float x) { return exp_float(x); }), py::arg("x"));
  module.def("exp_double", py::vectorize([](double x) { return exp_double(x); }), py::arg("x"));
  module.def("log_double", py::vectorize([](double x) { return log_double(x); }), py::arg("x"));
  module.def("pow_double",
             py::vectorize([](double base, double exponent) { return pow_double(base, exponent); }),
             py::arg("base"), py::arg("exponent"));

  module.def(
      "log_softmax", [](RowArray& scores) { log_softmax(as_row(scores), 0); }, py::arg("scores").noconvert(),
      "Apply log_softmax to one row, in place.");
  module.def(
      "argmax", [](RowArray& scores) { return checked_argmax(as_row(scores), 0); },
      py::arg("scores").noconvert(), "Return the lowest index of the largest score.");
}

}  // namespace sabiyarn::bindings::testing
