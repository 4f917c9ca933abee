#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/bindings.hpp"
#include "core/decoding/decode_state.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings {
namespace {

using Logits = py::array_t<float, py::array::c_style>;

// Checks the shape and returns the memory that the step writes to.
float* checked_logits(const DecodeState& state, Logits& logits) {
  if (logits.ndim() != 2 || logits.shape(0) != state.num_rows() || logits.shape(1) != state.vocab_size()) {
    throw std::invalid_argument("logits have shape " + py::cast<std::string>(py::str(logits.attr("shape"))) +
                                ", expected (" + std::to_string(state.num_rows()) + ", " +
                                std::to_string(state.vocab_size()) + "): num_rows, vocab_size");
  }
  return logits.mutable_data();  // throws if the array is read-only
}

template <typename T>
py::array_t<T> copied(const T* values, std::int64_t count) {
  return py::array_t<T>(static_cast<py::ssize_t>(count), values);
}

std::vector<TokenId> as_vector(std::span<const TokenId> ids) { return {ids.begin(), ids.end()}; }

}  // namespace

void register_decode_state(py::module_& module) {
  py::class_<DecodeState>(
      module, "DecodeState",
      "Decodes one call over rows of logits: greedy, sampling, beam search or beam sampling.")
      .def(py::init<DecodeOptions, std::int64_t, const std::vector<std::vector<TokenId>>&>(),
           py::arg("options"), py::arg("vocab_size"), py::arg("prompts"))
      .def_property_readonly("num_rows", &DecodeState::num_rows)
      .def_property_readonly("vocab_size", &DecodeState::vocab_size)
      .def_property_readonly("finished", &DecodeState::finished)
      .def_property_readonly("row_sources",
                             [](const DecodeState& s) { return copied(s.row_sources(), s.num_rows()); })
      .def_property_readonly("next_tokens",
                             [](const DecodeState& s) { return copied(s.next_tokens(), s.num_rows()); })
      .def_property_readonly("next_positions",
                             [](const DecodeState& s) { return copied(s.next_positions(), s.num_rows()); })
      .def(
          "process",
          [](DecodeState& s, Logits& logits) {
            float* data = checked_logits(s, logits);
            py::gil_scoped_release release;
            s.process(data);
          },
          py::arg("logits").noconvert(),
          "Apply log_softmax (with beams), then the score pipeline up to begin_suppress_tokens, to logits "
          "float32 [num_rows, vocab_size], in place.")
      .def(
          "propose",
          [](DecodeState& s, Logits& logits) {
            float* data = checked_logits(s, logits);
            py::gil_scoped_release release;
            s.propose(data);
          },
          py::arg("logits").noconvert(),
          "Apply temperature ... renormalize_logits, then choose tokens: see candidates(). Raises ValueError "
          "'scores: row ...' for NaN, or if no token is left.")
      .def(
          "commit",
          [](DecodeState& s, const std::optional<std::vector<bool>>& extra_hits) {
            std::vector<std::uint8_t> hits;
            if (extra_hits) {
              if (extra_hits->size() != s.candidates().size()) {
                throw std::invalid_argument("extra_hits has " + std::to_string(extra_hits->size()) +
                                            " values for " + std::to_string(s.candidates().size()) +
                                            " candidates");
              }
              hits.assign(extra_hits->begin(), extra_hits->end());
            }
            py::gil_scoped_release release;
            s.commit(extra_hits ? hits.data() : nullptr);
          },
          py::arg("extra_hits") = py::none(),
          "Append the proposed tokens, end finished sequences and make the next rows. extra_hits: for each "
          "candidate, True if a stopping criterion of the caller holds.")
      .def(
          "advance",
          [](DecodeState& s, Logits& logits) {
            float* data = checked_logits(s, logits);
            py::gil_scoped_release release;
            s.advance(data);
          },
          py::arg("logits").noconvert(), "Call process, propose and commit.")
      .def("prompt_of", &DecodeState::prompt_of, py::arg("row"),
           "Return the index of the prompt that a row continues.")
      .def(
          "history_of", [](const DecodeState& s, std::size_t row) { return as_vector(s.history_of(row)); },
          py::arg("row"), "Return prompt and output of a row so far.")
      .def("set_allowed_tokens", &DecodeState::set_allowed_tokens, py::arg("row"), py::arg("allowed"),
           "Allow only these tokens in this step. Call it before process.")
      .def_property_readonly(
          "token_masks",
          [](const py::object& self) {
            auto& state = self.cast<DecodeState&>();
            const std::span<std::uint32_t> masks = state.token_masks();
            const auto words = static_cast<py::ssize_t>(state.mask_words());
            const py::ssize_t rows = static_cast<py::ssize_t>(masks.size()) / words;
            return py::array_t<std::uint32_t>({rows, words}, masks.data(), self);  // keeps the state alive
          },
          "What propose may choose, uint32 [most rows, words], one bit for each id, zeros at first. In force "
          "once "
          "asked for; then write the first num_rows rows before each propose.")
      .def_property_readonly("no_token_left", &DecodeState::no_token_left,
                             "True if the last propose raised because every token of a row was removed.")
      .def("candidates",
           [](const DecodeState& s) {
             std::vector<std::pair<std::int32_t, TokenId>> result;
             for (const auto& candidate : s.candidates()) result.emplace_back(candidate.row, candidate.token);
             return result;
           })
      .def(
          "certain_tokens",
          [](const DecodeState& s, std::size_t output) { return as_vector(s.certain_tokens(output)); },
          py::arg("output"), "Return the generated tokens of an output that can no longer change.")
      .def("sequences_scores",
           [](const DecodeState& s) {
             std::vector<float> result;
             for (std::size_t i = 0; i < s.num_outputs(); ++i) result.push_back(s.sequence_score(i));
             return result;
           })
      .def("cancel", &DecodeState::cancel, "End every row at the next commit. May be called from any thread.")
      .def("interruption", [](const DecodeState& s) { return name(s.interruption()); })
      .def("last_tokens",
           [](const DecodeState& s) {
             std::vector<std::tuple<std::int32_t, TokenId, const char*>> result;
             for (const auto& token : s.last_tokens()) {
               result.emplace_back(token.output, token.token, name(token.reason));
             }
             return result;
           })
      .def("sequences",
           [](const DecodeState& s) {
             std::vector<std::vector<TokenId>> result;
             for (std::size_t i = 0; i < s.num_outputs(); ++i) result.push_back(as_vector(s.sequence(i)));
             return result;
           })
      .def("finish_reasons",
           [](const DecodeState& s) {
             std::vector<std::string> result;
             for (std::size_t i = 0; i < s.num_outputs(); ++i) result.emplace_back(name(s.finish_reason(i)));
             return result;
           })
      .def("scores",
           [](const DecodeState& s) {
             std::vector<std::vector<float>> result;
             for (std::size_t i = 0; i < s.num_outputs(); ++i) {
               const auto scores = s.scores(i);
               result.emplace_back(scores.begin(), scores.end());
             }
             return result;
           })
      // A bare pointer: the caller must keep the state alive.
      .def("_capsule", [](DecodeState& s) { return py::capsule(&s, "sabiyarn_edge.DecodeState"); });
}

}  // namespace sabiyarn::bindings
