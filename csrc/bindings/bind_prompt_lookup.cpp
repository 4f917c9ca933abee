#include <pybind11/stl.h>

#include "bindings/bindings.hpp"
#include "core/decoding/prompt_lookup.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings {

void register_prompt_lookup(py::module_& module) {
  module.def(
      "look_up",
      [](const std::vector<TokenId>& history, std::size_t max_ngram, std::size_t max_guesses) {
        std::vector<TokenId> guesses(max_guesses);
        guesses.resize(look_up(history, max_ngram, max_guesses, guesses.data()));
        return guesses;
      },
      py::arg("history"), py::arg("max_ngram"), py::arg("max_guesses"),
      "Return up to max_guesses ids behind the first earlier occurrence of the newest max_ngram ... 1 ids.");

  py::class_<Guesser>(module, "Guesser", "Guesses the tokens of one text for as long as that pays.")
      .def(py::init<std::size_t, std::size_t>(), py::arg("max_guesses"), py::arg("max_ngram"))
      .def(
          "guess",
          [](Guesser& guesser, const std::vector<TokenId>& history, std::size_t rows, std::size_t room) {
            return guesser.guess(history, rows, room);
          },
          py::arg("history"), py::arg("rows"), py::arg("room"))
      .def("note", &Guesser::note, py::arg("right"))
      .def("worth", &Guesser::worth, py::arg("rows"))
      .def_property_readonly("num_run", &Guesser::num_run)
      .def("_capsule", [](Guesser& guesser) { return py::capsule(&guesser, "sabiyarn_edge.Guesser"); });
}

}  // namespace sabiyarn::bindings
