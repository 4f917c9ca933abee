#include "bindings/bindings.hpp"
#include "core/kv/step_buffers.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings {

void register_step_buffers(py::module_& module) {
  py::class_<StepBuffers>(module, "StepBuffers",
                          "What a run of the graph reads and writes besides keys and values.")
      .def(py::init<std::int64_t>(), py::arg("vocab_size"))
      .def("free", &StepBuffers::free, py::call_guard<py::gil_scoped_release>(), "Give the memory back.")
      .def_property_readonly("nbytes", &StepBuffers::nbytes)
      .def_property_readonly("mask_nbytes", &StepBuffers::mask_nbytes)
      .def("_capsule",
           [](StepBuffers& buffers) { return py::capsule(&buffers, "sabiyarn_edge.StepBuffers"); });
}

}  // namespace sabiyarn::bindings
