#include <pybind11/stl.h>

#include "bindings/bindings.hpp"
#include "core/decoding/decode_options.hpp"
#include "core/decoding/stop_strings.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings {
namespace {

// One id, a list of ids, or None (no ids): the forms that Hugging Face's options take.
using OneOrMoreIds = std::variant<std::monostate, TokenId, std::vector<TokenId>>;

std::vector<TokenId> as_list(const OneOrMoreIds& ids) {
  if (const auto* one = std::get_if<TokenId>(&ids)) return {*one};
  if (const auto* more = std::get_if<std::vector<TokenId>>(&ids)) return *more;
  return {};
}

template <std::vector<TokenId> DecodeOptions::* member>
void def_ids(py::class_<DecodeOptions>& cls, const char* name) {
  cls.def_property(
      name, [](const DecodeOptions& o) { return o.*member; },
      [](DecodeOptions& o, const OneOrMoreIds& ids) { o.*member = as_list(ids); });
}

py::object get_early_stopping(const DecodeOptions& options) {
  if (options.early_stopping == EarlyStopping::never) return py::str("never");
  return py::bool_(options.early_stopping == EarlyStopping::yes);
}

void set_early_stopping(DecodeOptions& options, const std::variant<bool, std::string>& value) {
  if (const bool* flag = std::get_if<bool>(&value)) {
    options.early_stopping = *flag ? EarlyStopping::yes : EarlyStopping::no;
  } else if (std::get<std::string>(value) == "never") {
    options.early_stopping = EarlyStopping::never;
  } else {
    throw py::value_error("early_stopping is '" + std::get<std::string>(value) +
                          "'; it must be True, False or 'never'");
  }
}

using Biases = std::vector<std::pair<std::vector<TokenId>, float>>;

}  // namespace

void register_decode_options(py::module_& module) {
  py::class_<DecodeOptions> cls(
      module, "DecodeOptions",
      "Options of decoding, with the names, meanings and defaults of Hugging Face's GenerationConfig. A "
      "DecodeState checks them when it is made.");
  cls.def_readwrite("max_new_tokens", &DecodeOptions::max_new_tokens)
      .def_readwrite("max_length", &DecodeOptions::max_length)
      .def_readwrite("min_length", &DecodeOptions::min_length)
      .def_readwrite("min_new_tokens", &DecodeOptions::min_new_tokens)
      .def_readwrite("do_sample", &DecodeOptions::do_sample)
      .def_readwrite("num_beams", &DecodeOptions::num_beams)
      .def_readwrite("num_return_sequences", &DecodeOptions::num_return_sequences)
      .def_property("early_stopping", &get_early_stopping, &set_early_stopping)
      .def_readwrite("length_penalty", &DecodeOptions::length_penalty)
      .def_property(
          "sequence_bias",
          [](const DecodeOptions& o) {
            Biases result;
            for (const auto& entry : o.sequence_bias) result.emplace_back(entry.ids, entry.bias);
            return result;
          },
          [](DecodeOptions& o, const Biases& biases) {
            o.sequence_bias.clear();
            for (const auto& [ids, bias] : biases) o.sequence_bias.push_back({ids, bias});
          })
      .def_readwrite("repetition_penalty", &DecodeOptions::repetition_penalty)
      .def_readwrite("penalty_window", &DecodeOptions::penalty_window)
      .def_readwrite("frequency_penalty", &DecodeOptions::frequency_penalty)
      .def_readwrite("presence_penalty", &DecodeOptions::presence_penalty)
      .def_readwrite("no_repeat_ngram_size", &DecodeOptions::no_repeat_ngram_size)
      .def_readwrite("bad_words_ids", &DecodeOptions::bad_words_ids)
      .def_readwrite("forced_bos_token_id", &DecodeOptions::forced_bos_token_id)
      .def_readwrite("temperature", &DecodeOptions::temperature)
      .def_readwrite("top_k", &DecodeOptions::top_k)
      .def_readwrite("top_p", &DecodeOptions::top_p)
      .def_readwrite("min_p", &DecodeOptions::min_p)
      .def_readwrite("typical_p", &DecodeOptions::typical_p)
      .def_readwrite("epsilon_cutoff", &DecodeOptions::epsilon_cutoff)
      .def_readwrite("eta_cutoff", &DecodeOptions::eta_cutoff)
      .def_readwrite("renormalize_logits", &DecodeOptions::renormalize_logits)
      .def_property(
          "stop_strings",
          [](const DecodeOptions& o) {
            return std::vector<py::bytes>(o.stop_strings.begin(), o.stop_strings.end());
          },
          [](DecodeOptions& o, const std::vector<py::bytes>& strings) {
            o.stop_strings.assign(strings.begin(), strings.end());
          })
      .def_readwrite("token_bytes", &DecodeOptions::token_bytes)
      .def_readwrite("max_time_s", &DecodeOptions::max_time_s)
      .def_property(
          "seeds", [](const DecodeOptions& o) { return o.seeds; },
          [](DecodeOptions& o, const std::variant<std::uint64_t, std::vector<std::uint64_t>>& seeds) {
            if (const auto* one = std::get_if<std::uint64_t>(&seeds)) {
              o.seeds = {*one};
            } else {
              o.seeds = std::get<std::vector<std::uint64_t>>(seeds);
            }
          })
      .def_readwrite("return_scores", &DecodeOptions::return_scores);
  def_ids<&DecodeOptions::eos_token_id>(cls, "eos_token_id");
  def_ids<&DecodeOptions::forced_eos_token_id>(cls, "forced_eos_token_id");
  def_ids<&DecodeOptions::suppress_tokens>(cls, "suppress_tokens");
  def_ids<&DecodeOptions::begin_suppress_tokens>(cls, "begin_suppress_tokens");

  cls.def(py::init([](const py::kwargs& given) {
    DecodeOptions options;
    const py::object view = py::cast(&options, py::return_value_policy::reference);
    const auto known = py::type::of(view);  // asked of an instance, a name is answered by making its value
    for (const auto& [key, value] : given) {
      if (!py::hasattr(known, key)) {
        throw py::type_error("DecodeOptions has no option '" + py::cast<std::string>(key) + "'");
      }
      py::setattr(view, key, value);
    }
    return options;
  }));
}

}  // namespace sabiyarn::bindings
