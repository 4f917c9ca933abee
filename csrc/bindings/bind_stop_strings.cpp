#include <pybind11/stl.h>

#include "bindings/bindings.hpp"
#include "core/decoding/stop_strings.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings {

void register_stop_strings(py::module_& module) {
  py::class_<TokenBytes, std::shared_ptr<TokenBytes>>(
      module, "TokenBytes", "The bytes that each token id stands for; made once for a tokenizer.")
      .def(py::init([](const std::vector<py::bytes>& tokens) {
             const std::vector<std::string_view> views(tokens.begin(), tokens.end());
             return std::make_shared<TokenBytes>(views);
           }),
           py::arg("tokens"))
      .def("__len__", &TokenBytes::size)
      .def("__getitem__", [](const TokenBytes& tokens, std::size_t id) {
        if (id >= tokens.size()) throw py::index_error("no such token id");
        return py::bytes(tokens[static_cast<TokenId>(id)]);
      });

  module.def(
      "completes_stop_string",
      [](const std::vector<py::bytes>& stop_strings, const TokenBytes& tokens,
         const std::vector<TokenId>& ids, TokenId token) {
        const std::vector<std::string> strings(stop_strings.begin(), stop_strings.end());
        return StopStrings(strings, tokens).completed_by(ids, token);
      },
      py::arg("stop_strings"), py::arg("tokens"), py::arg("ids"), py::arg("token"),
      "Whether `token`, appended to `ids`, completes one of the stop strings.");
}

}  // namespace sabiyarn::bindings
