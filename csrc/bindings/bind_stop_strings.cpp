#include <pybind11/stl.h>

#include "bindings/bindings.hpp"
#include "core/decoding/stop_strings.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings {

void register_stop_strings(py::module_& module) {
  py::class_<TokenBytes, std::shared_ptr<TokenBytes>>(
      module, "TokenBytes", "The bytes of each token id. Make it once for a tokenizer.")
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
}

}  // namespace sabiyarn::bindings
