#include "bindings/testing/testing.hpp"
#include "core/kv/window_ring.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings::testing {

void register_window_ring(py::module_& module) {
  py::class_<WindowRing>(module, "WindowRing",
                         "Which slot holds which position, for one row of a KV cache with a window.")
      .def(py::init<std::int64_t, std::int64_t, std::int64_t>(), py::arg("window"),
           py::arg("num_sink_tokens") = 0, py::arg("slack") = 0)
      .def_property_readonly("size", &WindowRing::size)
      .def_property_readonly("total", &WindowRing::total)
      .def_property_readonly("oldest", &WindowRing::oldest)
      .def_property_readonly("max_append", &WindowRing::max_append)
      .def("slot_of", &WindowRing::slot_of, py::arg("position"))
      .def("append", &WindowRing::append, py::arg("count"))
      .def("truncate", &WindowRing::truncate, py::arg("total"))
      .def("clear", &WindowRing::clear);
}

}  // namespace sabiyarn::bindings::testing
