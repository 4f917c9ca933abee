// The functions of the score pipeline, each on one row in place. Tests compare them with their twins and with Hugging
// Face's; decoding goes through DecodeState.
#include <pybind11/stl.h>

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

#include "bindings/rows.hpp"
#include "bindings/testing/testing.hpp"
#include "core/selection/candidates.hpp"
#include "core/selection/sampler.hpp"
#include "core/selection/sampling_filters.hpp"
#include "core/selection/score_processors.hpp"
#include "core/selection/top_k.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings::testing {
namespace {

using IdList = std::vector<TokenId>;

void write_back(const Candidates& candidates, std::span<float> row) {
  std::fill(row.begin(), row.end(), -std::numeric_limits<float>::infinity());
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    row[static_cast<std::size_t>(candidates.ids()[i])] = candidates.scores()[i];
  }
}

std::size_t at_least_one(std::size_t count) {
  if (count < 1) throw std::invalid_argument("a count is 0; it must be at least 1");
  return count;
}

const IdList& checked(const IdList& ids, std::span<const float> row) {
  for (const TokenId id : ids) {
    if (id < 0 || static_cast<std::size_t>(id) >= row.size()) {
      throw std::invalid_argument("id " + std::to_string(id) + " is not in a row of " +
                                  std::to_string(row.size()) + " scores");
    }
  }
  return ids;
}

const std::vector<IdList>& checked(const std::vector<IdList>& words, std::span<const float> row) {
  for (const IdList& ids : words) {
    at_least_one(checked(ids, row).size());
  }
  return words;
}

// Runs a filter over the tokens above -inf of a row, if there are any, and writes the kept ones back.
template <typename Filter>
void on_candidates(RowArray& scores, Filter filter) {
  const auto row = as_row(scores);
  for (const float score : row) {
    if (!(score < std::numeric_limits<float>::infinity()))
      throw std::invalid_argument("scores hold NaN or +inf");
  }
  Candidates candidates;
  candidates.gather(row, 1.0f);
  if (candidates.size() == 0) return;
  filter(candidates);
  write_back(candidates, row);
}

template <void (*filter)(Candidates&, double, std::size_t, FilterScratch&)>
void def_filter(py::module_& module, const char* name, const char* value) {
  module.def(
      name,
      [](RowArray& scores, double threshold, std::size_t keep) {
        on_candidates(scores, [&](Candidates& row) {
          FilterScratch scratch;
          filter(row, threshold, at_least_one(keep), scratch);
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
        for (const auto& [sequence, bias] : biases) {
          at_least_one(checked(sequence, row).size());
          entries.push_back({sequence, bias});
        }
        IdBiases scratch(row.size(), 0.0f);
        apply_sequence_bias(row, ids, entries, scratch);
      },
      py::arg("scores").noconvert(), py::arg("ids"), py::arg("biases"));
  module.def(
      "apply_repetition_penalty",
      [](RowArray& scores, const IdList& ids, float penalty, std::size_t window) {
        const auto row = as_row(scores);
        IdCounts scratch(row.size(), 0);
        apply_repetition_penalty(row, checked(ids, row), penalty, window, scratch);
      },
      py::arg("scores").noconvert(), py::arg("ids"), py::arg("penalty"), py::arg("window") = 0);
  module.def(
      "apply_openai_penalties",
      [](RowArray& scores, const IdList& generated, float frequency, float presence) {
        const auto row = as_row(scores);
        IdCounts scratch(row.size(), 0);
        apply_openai_penalties(row, checked(generated, row), frequency, presence, scratch);
      },
      py::arg("scores").noconvert(), py::arg("generated"), py::arg("frequency"), py::arg("presence"));
  module.def(
      "ban_repeated_ngrams",
      [](RowArray& scores, const IdList& ids, std::size_t ngram_size) {
        const auto row = as_row(scores);
        ban_repeated_ngrams(row, checked(ids, row), at_least_one(ngram_size));
      },
      py::arg("scores").noconvert(), py::arg("ids"), py::arg("ngram_size"));
  module.def(
      "ban_bad_words",
      [](RowArray& scores, const IdList& ids, const std::vector<IdList>& bad_words) {
        const auto row = as_row(scores);
        ban_bad_words(row, ids, checked(bad_words, row));
      },
      py::arg("scores").noconvert(), py::arg("ids"), py::arg("bad_words"));
  module.def(
      "keep_only",
      [](RowArray& scores, const IdList& allowed) {
        const auto row = as_row(scores);
        IdCounts scratch(row.size(), 0);
        keep_only(row, checked(allowed, row), scratch);
      },
      py::arg("scores").noconvert(), py::arg("allowed"));

  module.def(
      "filter_top_k",
      [](RowArray& scores, std::size_t k, float temperature) {
        const auto row = as_row(scores);
        Candidates candidates;
        TopK selection;
        candidates.gather_top_k(row, temperature, at_least_one(k), selection);
        write_back(candidates, row);
      },
      py::arg("scores").noconvert(), py::arg("k"), py::arg("temperature") = 1.0f);
  def_filter<filter_top_p>(module, "filter_top_p", "p");
  def_filter<filter_min_p>(module, "filter_min_p", "min_p");
  def_filter<filter_typical_p>(module, "filter_typical_p", "mass");
  def_filter<filter_epsilon>(module, "filter_epsilon", "epsilon");
  def_filter<filter_eta>(module, "filter_eta", "epsilon");
  module.def(
      "renormalize", [](RowArray& scores) { on_candidates(scores, renormalize); },
      py::arg("scores").noconvert());

  module.def(
      "filter_scores",
      [](RowArray& scores, const DecodeOptions& options) {
        const auto row = as_row(scores);
        validate(options, static_cast<std::int64_t>(row.size()));
        Sampler sampler(options);
        write_back(sampler.filter(row, 0), row);
      },
      py::arg("scores").noconvert(), py::arg("options"),
      "Apply everything that sampling with these options does to a row, in order and in place.");
  module.def(
      "select_top",
      [](RowArray& scores, std::size_t k) {
        TopK selection;
        selection.begin(at_least_one(k));
        selection.offer(as_row(scores), 0.0f, 0);
        std::vector<std::pair<float, std::int32_t>> result;
        for (const auto [score, index] : selection.finish()) result.emplace_back(score, index);
        return result;
      },
      py::arg("scores").noconvert(), py::arg("k"),
      "Return the k best (score, index), the lower index first among equals.");
}

}  // namespace sabiyarn::bindings::testing
