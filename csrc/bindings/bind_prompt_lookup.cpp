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
}

}  // namespace sabiyarn::bindings
