#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings/bindings.hpp"
#include "core/kv/kv_cache.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings {

namespace {

KvDtype parse_dtype(const std::string& name) {
  if (name == "float16") return KvDtype::kFloat16;
  if (name == "float32") return KvDtype::kFloat32;
  if (name == "int8") return KvDtype::kInt8;
  throw std::invalid_argument("dtype is '" + name + "', but a KV cache is 'float16', 'float32' or 'int8'");
}

const char* dtype_name(KvDtype dtype) {
  return dtype == KvDtype::kInt8 ? "int8" : dtype == KvDtype::kFloat16 ? "float16" : "float32";
}

void check_row(const KvCache& cache, std::int64_t row) {
  if (row < 0 || row >= cache.num_rows()) {
    throw std::out_of_range("row " + std::to_string(row) + " is not one of the " +
                            std::to_string(cache.num_rows()) + " rows");
  }
}

using Moves = std::vector<std::pair<std::int64_t, std::int64_t>>;

Moves as_pairs(const std::vector<SlotMove>& moves) {
  Moves pairs;
  pairs.reserve(moves.size());
  for (const SlotMove& move : moves) pairs.emplace_back(move.from, move.to);
  return pairs;
}

}  // namespace

void register_kv_cache(py::module_& module) {
  py::class_<WindowRing>(module, "WindowRing",
                         "Which slot holds which position, for one row of a KV cache with a window.")
      .def(py::init<std::int64_t, std::int64_t>(), py::arg("window"), py::arg("num_sink_tokens") = 0)
      .def_property_readonly("window", &WindowRing::window)
      .def_property_readonly("length", &WindowRing::length)
      .def_property_readonly("total", &WindowRing::total)
      .def("slot_of", &WindowRing::slot_of, py::arg("position"))
      .def(
          "append",
          [](WindowRing& ring, std::int64_t count) {
            std::vector<SlotMove> moves;
            const std::int64_t landing = ring.append(count, moves);
            return std::pair(landing, as_pairs(moves));
          },
          py::arg("count"), "Count `count` new tokens in: (first slot they land in, [(from, to), ...]).")
      .def(
          "truncate",
          [](WindowRing& ring, std::int64_t total) {
            std::vector<SlotMove> moves;
            ring.truncate(total, moves);
            return as_pairs(moves);
          },
          py::arg("total"), "Forget the newest tokens so that `total` remain: [(from, to), ...].")
      .def("clear", &WindowRing::clear);

  py::class_<KvCache>(
      module, "KvCache",
      "Keys and values of every layer: [rows, num_heads, capacity, head_dim] per layer and side.")
      .def(py::init([](std::int64_t num_layers, std::int64_t num_heads, std::int64_t head_dim,
                       const std::string& dtype, std::int64_t window, std::int64_t num_sink_tokens,
                       std::int64_t min_capacity) {
             return KvCache({num_layers, num_heads, head_dim, parse_dtype(dtype)}, window, num_sink_tokens,
                            min_capacity);
           }),
           py::kw_only(), py::arg("num_layers"), py::arg("num_heads"), py::arg("head_dim"), py::arg("dtype"),
           py::arg("window"), py::arg("num_sink_tokens") = 0, py::arg("min_capacity") = 256)
      .def("reset", &KvCache::reset, py::arg("num_rows"), py::call_guard<py::gil_scoped_release>(),
           "Forget every row and start with `num_rows` empty ones; memory is kept.")
      .def("reserve", &KvCache::reserve, py::arg("positions"), py::call_guard<py::gil_scoped_release>(),
           "Make the capacity hold at least `positions` per row.")
      .def(
          "begin_append",
          [](KvCache& cache, std::int64_t row, std::int64_t count) {
            check_row(cache, row);
            py::gil_scoped_release release;
            return cache.begin_append(row, count);
          },
          py::arg("row"), py::arg("count"),
          "Make room for `count` new tokens at the end of the row; returns its length with them.")
      .def(
          "reorder",
          [](KvCache& cache, const std::vector<std::int32_t>& sources) {
            py::gil_scoped_release release;
            cache.reorder(sources.data(), static_cast<std::int64_t>(sources.size()));
          },
          py::arg("sources"), "Row i continues row sources[i].")
      .def(
          "truncate",
          [](KvCache& cache, std::int64_t row, std::int64_t total) {
            check_row(cache, row);
            py::gil_scoped_release release;
            cache.truncate(row, total);
          },
          py::arg("row"), py::arg("total"),
          "Forget the row's newest tokens so that its next position is `total`.")
      .def(
          "restart",
          [](KvCache& cache, std::int64_t row) {
            check_row(cache, row);
            cache.restart(row);
          },
          py::arg("row"), "Forget all tokens of the row: its next position is 0.")
      .def(
          "keep_prefix",
          [](KvCache& cache, std::int64_t row, std::int64_t total) {
            check_row(cache, row);
            py::gil_scoped_release release;
            cache.keep_prefix(row, total);
          },
          py::arg("row"), py::arg("total"),
          "Forget all but the first `total` positions of one row, which becomes row 0; none of them may have "
          "been evicted.")
      .def("clear", &KvCache::clear, py::call_guard<py::gil_scoped_release>(),
           "Zero what was written, forget every row, keep the memory.")
      .def("free", &KvCache::free, py::call_guard<py::gil_scoped_release>(),
           "Forget every row and give the memory back.")
      .def(
          "length",
          [](const KvCache& cache, std::int64_t row) {
            check_row(cache, row);
            return cache.ring(row).length();
          },
          py::arg("row"), "Live tokens of the row.")
      .def(
          "next_position",
          [](const KvCache& cache, std::int64_t row) {
            check_row(cache, row);
            return cache.next_position(row);
          },
          py::arg("row"), "The position of the row's next token.")
      .def(
          "slot_of",
          [](const KvCache& cache, std::int64_t row, std::int64_t position) {
            check_row(cache, row);
            return cache.ring(row).slot_of(position);
          },
          py::arg("row"), py::arg("position"), "The slot that holds `position`, or -1 if it is not held.")
      .def(
          "positions",
          [](const KvCache& cache, std::int64_t row) {
            check_row(cache, row);
            const WindowRing& ring = cache.ring(row);
            py::array_t<std::int64_t> positions(ring.length());
            std::int64_t* by_slot = positions.mutable_data();
            for (std::int64_t position = 0; position < ring.total(); ++position) {
              const std::int64_t slot = ring.slot_of(position);
              if (slot >= 0) by_slot[slot] = position;
            }
            return positions;
          },
          py::arg("row"), "The position that each of the row's live slots holds, int64 [length(row)].")
      .def(
          "buffer",
          [](py::object self, std::int64_t layer, const std::string& side) -> py::object {
            auto& cache = self.cast<KvCache&>();
            const KvShape& shape = cache.shape();
            if (layer < 0 || layer >= shape.num_layers) throw std::out_of_range("no such layer");
            if (side != "key" && side != "value") throw std::invalid_argument("side is 'key' or 'value'");
            std::byte* data = side == "key" ? cache.keys(layer) : cache.values(layer);
            if (data == nullptr || cache.capacity() == 0) return py::none();
            const py::dtype dtype(dtype_name(shape.dtype));
            // The array borrows: it keeps the cache alive, and is stale once layout_version changes.
            return py::array(dtype, {cache.num_rows(), shape.num_heads, cache.capacity(), shape.head_dim}, {},
                             data, self);
          },
          py::arg("layer"), py::arg("side"),
          "A view [rows, num_heads, capacity, head_dim] of one buffer, valid until layout_version changes; "
          "None before memory is taken.")
      .def_property_readonly("num_rows", &KvCache::num_rows)
      .def_property_readonly("capacity", &KvCache::capacity)
      .def_property_readonly("window", &KvCache::window)
      .def_property_readonly("nbytes", &KvCache::nbytes)
      .def_property_readonly("bytes_per_position", &KvCache::bytes_per_position)
      .def_property_readonly("layout_version", &KvCache::layout_version)
      .def("_capsule", [](KvCache& cache) { return py::capsule(&cache, "sabiyarn_edge.KvCache"); });
}

}  // namespace sabiyarn::bindings
