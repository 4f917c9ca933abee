#include <pybind11/stl.h>

#include "bindings/testing/testing.hpp"
#include "core/decoding/prompt_lookup.hpp"
#include "core/decoding/token_cost.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings::testing {

void register_prompt_lookup(py::module_& module) {
  module.def(
      "look_up",
      [](const std::vector<TokenId>& history, std::size_t max_ngram, std::size_t max_guesses) {
        std::vector<TokenId> guesses(max_guesses);
        const LookupMatch match = look_up(history, max_ngram, max_guesses, guesses.data());
        guesses.resize(match.count);
        return py::make_tuple(match.ngram, guesses);
      },
      py::arg("history"), py::arg("max_ngram"), py::arg("max_guesses"),
      "Return how many of the newest ids, at most max_ngram, occurred before, and up to max_guesses ids "
      "behind "
      "their first occurrence.");
  module.def(
      "guess",
      [](Guesser& guesser, const std::vector<TokenId>& history, float price, std::size_t room) {
        return guesser.guess(history, price, room);
      },
      py::arg("guesser"), py::arg("history"), py::arg("price"), py::arg("room"));
  module.def(
      "note_token", [](Guesser& guesser, TokenId came) { return guesser.note(came); }, py::arg("guesser"),
      py::arg("came"));
  module.def(
      "worth",
      [](const Guesser& guesser, std::size_t ngram, float price) { return guesser.worth(ngram, price); },
      py::arg("guesser"), py::arg("ngram"), py::arg("price"));

  py::class_<TokenCost>(module, "TokenCost",
                        "What one more token costs in a run, learnt from the runs' times.")
      .def(py::init<>())
      .def("price", &TokenCost::price, py::arg("rows"))
      .def("note", &TokenCost::note, py::arg("rows"), py::arg("more"), py::arg("seconds"));
}

}  // namespace sabiyarn::bindings::testing
