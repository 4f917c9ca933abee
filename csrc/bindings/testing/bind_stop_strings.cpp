#include <pybind11/stl.h>

#include "bindings/testing/testing.hpp"
#include "core/decoding/stop_strings.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings::testing {

void register_stop_strings(py::module_& module) {
  module.def(
      "completes_stop_string",
      [](const std::vector<py::bytes>& stop_strings, const TokenBytes& tokens,
         const std::vector<TokenId>& ids, TokenId token) {
        const std::vector<std::string> strings(stop_strings.begin(), stop_strings.end());
        return StopStrings(strings, tokens).completed_by(ids, token);
      },
      py::arg("stop_strings"), py::arg("tokens"), py::arg("ids"), py::arg("token"),
      "Return True if `token`, appended to `ids`, completes one of the stop strings.");
}

}  // namespace sabiyarn::bindings::testing
