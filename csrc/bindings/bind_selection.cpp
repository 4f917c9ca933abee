#include <pybind11/numpy.h>

#include "bindings/bindings.hpp"
#include "bindings/rows.hpp"
#include "core/selection/random.hpp"
#include "core/selection/row_math.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings {

void register_selection(py::module_& module) {
  module.def("derived_seed", &derived_seed, py::arg("seed"), py::arg("row"),
             "Return the seed of a row in a call with one seed; row 0 has the seed itself.");
  module.def(
      "log_sum_exp",
      [](RowArray& scores) {
        const auto row = as_row(scores);
        return log_sum_exp(row, checked_maximum(row, 0));
      },
      py::arg("scores").noconvert(), "Return log(sum(exp(scores - max(scores)))) of one row.");
}

}  // namespace sabiyarn::bindings
