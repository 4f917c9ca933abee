#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/bindings.hpp"
#include "core/decoding/choice_automaton.hpp"
#include "core/selection/score_processors.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings {
namespace {

using Mask = py::array_t<std::uint32_t, py::array::c_style>;
using State = ChoiceAutomaton::State;

// An automaton with the order that it was made of, which knows how many ids a mask must have room for.
struct BoundAutomaton {
  ChoiceAutomaton automaton;
  std::size_t mask_words;
};

State checked(const BoundAutomaton& bound, State state) {
  if (state < ChoiceAutomaton::kRefused || state >= bound.automaton.num_states()) {
    throw std::out_of_range("there is no state " + std::to_string(state));
  }
  return state;
}

std::span<std::uint32_t> checked_mask(Mask& mask, std::size_t words) {
  if (mask.ndim() != 1 || static_cast<std::size_t>(mask.size()) < words) {
    throw std::invalid_argument("the mask has shape " + py::cast<std::string>(py::str(mask.attr("shape"))) +
                                "; it must be one row of at least " + std::to_string(words) + " words");
  }
  return {mask.mutable_data(), static_cast<std::size_t>(mask.size())};
}

}  // namespace

void register_choice_automaton(py::module_& module) {
  py::class_<TokenOrder>(
      module, "TokenOrder",
      "The token ids of a vocabulary, sorted by their bytes. Make it once for a tokenizer.")
      .def(py::init([](std::shared_ptr<TokenBytes> tokens, const std::vector<TokenId>& excluded) {
             return TokenOrder(std::move(tokens), excluded);
           }),
           py::arg("tokens").none(false), py::arg("excluded"));

  py::class_<BoundAutomaton>(
      module, "ChoiceAutomaton",
      "Which tokens write one of several texts, step by step. A state is an integer: 0 at "
      "the beginning, -1 for a text that no choice begins with.")
      .def(py::init([](const std::vector<py::bytes>& choices, const TokenOrder& tokens,
                       std::vector<TokenId> not_first) {
             if (choices.empty() || std::any_of(choices.begin(), choices.end(), [](const py::bytes& choice) {
                   return std::string_view(choice).empty();
                 })) {
               throw std::invalid_argument("there is no choice, or one is empty");
             }
             std::sort(not_first.begin(), not_first.end());
             std::vector<std::string> texts(choices.begin(), choices.end());
             py::gil_scoped_release release;
             return BoundAutomaton{ChoiceAutomaton(std::move(texts), tokens, not_first),
                                   tokens.num_ids() / kMaskBits + 1};
           }),
           py::arg("choices"), py::arg("tokens"), py::arg("not_first"))
      .def(
          "allow",
          [](const BoundAutomaton& bound, State state, Mask& mask) {
            bound.automaton.allow(checked(bound, state), checked_mask(mask, bound.mask_words));
          },
          py::arg("state"), py::arg("mask").noconvert(), "Set the bits of the tokens that may come next.")
      .def(
          "next",
          [](const BoundAutomaton& bound, State state, TokenId token) {
            return bound.automaton.next(checked(bound, state), token);
          },
          py::arg("state"), py::arg("token"), "Return the state after a token.")
      .def(
          "is_complete",
          [](const BoundAutomaton& bound, State state) {
            return bound.automaton.is_complete(checked(bound, state));
          },
          py::arg("state"), "Return whether the text so far is one of the choices.")
      .def(
          "can_go_on",
          [](const BoundAutomaton& bound, State state) {
            return bound.automaton.can_go_on(checked(bound, state));
          },
          py::arg("state"), "Return whether a longer choice begins with the text so far.")
      .def_property_readonly(
          "unwritable",
          [](const BoundAutomaton& bound) {
            const auto& texts = bound.automaton.unwritable();
            return std::vector<py::bytes>(texts.begin(), texts.end());
          },
          "The choices that no row of tokens writes, sorted.");
}

}  // namespace sabiyarn::bindings
