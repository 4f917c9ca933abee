#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <vector>

#include "bindings/bindings.hpp"
#include "bindings/shapes.hpp"
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

// [num_layers, 2, num_heads, positions, head_dim]
std::vector<py::ssize_t> logical_shape(const KvShape& shape, std::int64_t positions) {
  return {shape.num_layers, 2, shape.num_heads, positions, shape.head_dim};
}

}  // namespace

void register_kv_cache(py::module_& module) {
  py::class_<KvCache>(module, "KvCache",
                      "Keys and values of every layer, each row with a window of positions.")
      .def(py::init([](std::int64_t num_layers, std::int64_t num_heads, std::int64_t head_dim,
                       const std::string& dtype, std::int64_t window, std::int64_t num_sink_tokens,
                       std::int64_t slack, std::int64_t min_capacity) {
             return KvCache({num_layers, num_heads, head_dim, parse_dtype(dtype)}, window, num_sink_tokens,
                            slack, min_capacity);
           }),
           py::kw_only(), py::arg("num_layers"), py::arg("num_heads"), py::arg("head_dim"), py::arg("dtype"),
           py::arg("window"), py::arg("num_sink_tokens") = 0, py::arg("slack") = 0,
           py::arg("min_capacity") = 256)
      .def("resize", &KvCache::resize, py::arg("num_rows"), py::call_guard<py::gil_scoped_release>(),
           "Add empty rows, so that there are `num_rows`.")
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
          "Make room for `count` new tokens, at most max_append(row); returns the row's total with them.")
      .def(
          "fork",
          [](KvCache& cache, std::int64_t source, const std::vector<std::int32_t>& targets,
             std::int64_t total) {
            check_row(cache, source);
            py::gil_scoped_release release;
            cache.fork(source, targets.data(), static_cast<std::int64_t>(targets.size()), total);
          },
          py::arg("source"), py::arg("targets"), py::arg("total"),
          "Have other rows continue the first `total` tokens of a row; they share its memory so far.")
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
          "release_row",
          [](KvCache& cache, std::int64_t row) {
            check_row(cache, row);
            py::gil_scoped_release release;
            cache.release_row(row);
          },
          py::arg("row"), "Forget all tokens of the row and give its memory back to the system.")
      .def(
          "read",
          [](const KvCache& cache, std::int64_t row, std::int64_t first, std::int64_t end) {
            check_row(cache, row);
            const std::int64_t total = cache.next_position(row);
            const std::int64_t count = first >= 0 && first <= end && end <= total ? end - first : 0;
            py::array result(py::dtype(dtype_name(cache.shape().dtype)), logical_shape(cache.shape(), count));
            auto* target = static_cast<std::byte*>(result.mutable_data());
            {
              py::gil_scoped_release release;
              cache.read(row, first, end, target);
            }
            return result;
          },
          py::arg("row"), py::arg("first"), py::arg("end"),
          "A copy of the positions first ... end - 1, [num_layers, 2, num_heads, end - first, head_dim]; all "
          "must "
          "be held.")
      .def(
          "write",
          [](KvCache& cache, std::int64_t row, const py::array& positions) {
            check_row(cache, row);
            const std::int64_t count = positions.ndim() == 5 ? positions.shape(3) : 0;
            const std::vector<py::ssize_t> expected = logical_shape(cache.shape(), count);
            const py::dtype dtype(dtype_name(cache.shape().dtype));
            if (!std::equal(expected.begin(), expected.end(), positions.shape(),
                            positions.shape() + positions.ndim()) ||
                !positions.dtype().equal(dtype) || (positions.flags() & py::array::c_style) == 0) {
              const KvShape& shape = cache.shape();
              throw std::invalid_argument("write takes an array [" + std::to_string(shape.num_layers) +
                                          ", 2, " + std::to_string(shape.num_heads) + ", positions, " +
                                          std::to_string(shape.head_dim) + "] of " + dtype_name(shape.dtype) +
                                          " in C order, not " + shape_of(positions) + " of " +
                                          py::cast<std::string>(py::str(py::object(positions.dtype()))));
            }
            const auto* source = static_cast<const std::byte*>(positions.data());
            py::gil_scoped_release release;
            cache.write(row, count, source);
          },
          py::arg("row"), py::arg("positions"),
          "Append positions to the row, [num_layers, 2, num_heads, positions, head_dim] as read() gives "
          "them.")
      .def("clear", &KvCache::clear, py::call_guard<py::gil_scoped_release>(),
           "Zero what was written, forget every row, keep the memory.")
      .def("free", &KvCache::free, py::call_guard<py::gil_scoped_release>(),
           "Forget every row and give the memory back.")
      .def(
          "next_position",
          [](const KvCache& cache, std::int64_t row) {
            check_row(cache, row);
            return cache.next_position(row);
          },
          py::arg("row"), "The position of the row's next token.")
      .def(
          "oldest",
          [](const KvCache& cache, std::int64_t row) {
            check_row(cache, row);
            return cache.oldest(row);
          },
          py::arg("row"),
          "Positions of the row below it are evicted, but for the sinks; 0 until the first eviction.")
      .def(
          "shared_slots",
          [](const KvCache& cache, std::int64_t row, std::int64_t other) {
            check_row(cache, row);
            check_row(cache, other);
            return cache.shared_slots(row, other);
          },
          py::arg("row"), py::arg("other"), "Leading slots in which two rows hold the same keys and values.")
      .def(
          "max_append",
          [](const KvCache& cache, std::int64_t row) {
            check_row(cache, row);
            return cache.max_append(row);
          },
          py::arg("row"), "The most tokens that begin_append() takes at once.")
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
            std::vector<py::ssize_t> stored{cache.num_rows(), shape.num_heads, cache.capacity(),
                                            shape.head_dim};
            if (side == "key") {
              stored = {cache.num_rows(), shape.num_heads, cache.capacity() / kKeyTile, shape.head_dim,
                        kKeyTile};
            }
            return py::array(dtype, stored, {}, data, self);
          },
          py::arg("layer"), py::arg("side"),
          "A view of one buffer as it is stored: values [rows, num_heads, capacity, head_dim], keys [rows, "
          "num_heads, "
          "capacity / 16, head_dim, 16]. Valid until layout_version changes; None before memory is taken.")
      .def_property_readonly("num_rows", &KvCache::num_rows)
      .def_property_readonly("capacity", &KvCache::capacity)
      .def_property_readonly("window", &KvCache::window)
      .def_property_readonly("num_sink_tokens", &KvCache::num_sink_tokens)
      .def_property_readonly("ring_size", &KvCache::ring_size)
      .def_property_readonly("nbytes", &KvCache::nbytes)
      .def_property_readonly("bytes_per_position", &KvCache::bytes_per_position)
      .def_property_readonly("layout_version", &KvCache::layout_version)
      .def("_capsule", [](KvCache& cache) { return py::capsule(&cache, "sabiyarn_edge.KvCache"); });
}

}  // namespace sabiyarn::bindings
