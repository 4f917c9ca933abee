#include "bindings/bindings.hpp"
#include "core/decoding/prompt_lookup.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings {

void register_prompt_lookup(py::module_& module) {
  py::class_<Guesser>(module, "Guesser", "Guesses the tokens of one text for as long as that pays.")
      .def(py::init<std::size_t, std::size_t>(), py::arg("max_guesses"), py::arg("max_ngram"))
      .def_property_readonly("num_run", &Guesser::num_run)
      .def("_capsule", [](Guesser& guesser) { return py::capsule(&guesser, "sabiyarn_edge.Guesser"); });
}

}  // namespace sabiyarn::bindings
