// The score pipeline's functions one by one, on one row in place, as the tests compare them with their twins
// and with Hugging Face's. DecodeState is what decoding uses.
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>

#include "bindings/bindings.hpp"
#include "bindings/rows.hpp"
#include "core/sampler.hpp"
#include "core/sampling_filters.hpp"
#include "core/score_processors.hpp"
#include "core/softmax.hpp"
#include "core/survivors.hpp"
#include "core/top_selection.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings {
namespace {

using IdList = std::vector<TokenId>;

void write_back(const Survivors& survivors, std::span<float> row) {
  std::fill(row.begin(), row.end(), -std::numeric_limits<float>::infinity());
  for (std::size_t i = 0; i < survivors.size(); ++i) {
    row[static_cast<std::size_t>(survivors.ids()[i])] = survivors.scores()[i];
  }
}

// Runs a filter over the tokens above -inf of a row and writes back what is left.
template <typename Filter>
void on_survivors(RowArray& scores, Filter filter) {
  const auto row = as_row(scores);
  Survivors survivors;
  survivors.gather(row, 1.0f);
  filter(survivors);
  write_back(survivors, row);
}

template <void (*filter)(Survivors&, double, std::size_t, FilterScratch&)>
void def_filter(py::module_& module, const char* name, const char* value) {
  module.def(
      name,
      [](RowArray& scores, double threshold, std::size_t keep) {
        on_survivors(scores, [&](Survivors& row) {
          FilterScratch scratch;
          filter(row, threshold, keep, scratch);
        });
      },
      py::arg("scores").noconvert(), py::arg(value), py::arg("keep") = 1);
}

}  // namespace

void register_score_functions(py::module_& module) {
  module.def(
      "apply_sequence_bias",
      [](RowArray& scores, const IdList& ids, const std::vector<std::pair<IdList, float>>& biases) {
        const auto row = as_row(scores);
        std::vector<SequenceBias> entries;
        for (const auto& [sequence, bias] : biases) entries.push_back({sequence, bias});
        IdBiases scratch(row.size(), 0.0f);
        apply_sequence_bias(row, ids, entries, scratch);
      },
      py::arg("scores").noconvert(), py::arg("ids"), py::arg("biases"));
  module.def(
      "apply_repetition_penalty",
      [](RowArray& scores, const IdList& ids, float penalty, std::size_t window) {
        const auto row = as_row(scores);
        IdCounts scratch(row.size(), 0);
        apply_repetition_penalty(row, ids, penalty, window, scratch);
      },
      py::arg("scores").noconvert(), py::arg("ids"), py::arg("penalty"), py::arg("window") = 0);
  module.def(
      "apply_openai_penalties",
      [](RowArray& scores, const IdList& generated, float frequency, float presence) {
        const auto row = as_row(scores);
        IdCounts scratch(row.size(), 0);
        apply_openai_penalties(row, generated, frequency, presence, scratch);
      },
      py::arg("scores").noconvert(), py::arg("generated"), py::arg("frequency"), py::arg("presence"));
  module.def(
      "ban_repeated_ngrams",
      [](RowArray& scores, const IdList& ids, std::size_t ngram_size) {
        ban_repeated_ngrams(as_row(scores), ids, ngram_size);
      },
      py::arg("scores").noconvert(), py::arg("ids"), py::arg("ngram_size"));
  module.def(
      "ban_bad_words",
      [](RowArray& scores, const IdList& ids, const std::vector<IdList>& bad_words) {
        ban_bad_words(as_row(scores), ids, bad_words);
      },
      py::arg("scores").noconvert(), py::arg("ids"), py::arg("bad_words"));
  module.def(
      "keep_only",
      [](RowArray& scores, const IdList& allowed) {
        const auto row = as_row(scores);
        IdCounts scratch(row.size(), 0);
        keep_only(row, allowed, scratch);
      },
      py::arg("scores").noconvert(), py::arg("allowed"));

  module.def(
      "filter_top_k",
      [](RowArray& scores, std::size_t k, float temperature) {
        const auto row = as_row(scores);
        Survivors survivors;
        TopSelection selection;
        survivors.gather_top_k(row, temperature, k, selection);
        write_back(survivors, row);
      },
      py::arg("scores").noconvert(), py::arg("k"), py::arg("temperature") = 1.0f);
  def_filter<filter_top_p>(module, "filter_top_p", "p");
  def_filter<filter_min_p>(module, "filter_min_p", "min_p");
  def_filter<filter_typical_p>(module, "filter_typical_p", "mass");
  def_filter<filter_epsilon>(module, "filter_epsilon", "epsilon");
  def_filter<filter_eta>(module, "filter_eta", "epsilon");
  module.def(
      "renormalize", [](RowArray& scores) { on_survivors(scores, renormalize); },
      py::arg("scores").noconvert());

  module.def(
      "filter_scores",
      [](RowArray& scores, const DecodeOptions& options) {
        const auto row = as_row(scores);
        validate(options, static_cast<std::int64_t>(row.size()));
        Sampler sampler(options, row.size());
        write_back(sampler.filter(row, 0), row);
      },
      py::arg("scores").noconvert(), py::arg("options"),
      "All that sampling with these options does to a row, in order.");
  module.def("softmax_path", &softmax_path,
             "The path of exponentials chosen for this CPU: 'avx2' or 'baseline'.");
  module.def(
      "select_top",
      [](RowArray& scores, std::size_t k) {
        TopSelection selection;
        selection.begin(k);
        selection.offer(as_row(scores), 0.0f, 0);
        std::vector<std::pair<float, std::int32_t>> result;
        for (const auto [score, index] : selection.finish()) result.emplace_back(score, index);
        return result;
      },
      py::arg("scores").noconvert(), py::arg("k"),
      "The k best (score, index), lower indices first among equals.");
}

}  // namespace sabiyarn::bindings
