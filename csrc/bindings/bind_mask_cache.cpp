#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "bindings/bindings.hpp"
#include "core/kv/mask_cache.hpp"

namespace py = pybind11;

namespace sabiyarn::bindings {

void register_mask_cache(py::module_& module) {
  py::class_<MaskCache>(module, "MaskCache",
                        "Causal masks by power of two, made when first asked for: size * size bytes each.")
      .def(py::init<std::int64_t, std::int64_t>(), py::kw_only(), py::arg("largest"),
           py::arg("smallest") = 64)
      .def("size_for", &MaskCache::size_for, py::arg("positions"),
           "The size of the mask that serves `positions`.")
      .def(
          "rows",
          [](MaskCache& cache, std::int64_t first, std::int64_t count) {
            MaskRows rows{};
            {
              py::gil_scoped_release release;
              rows = cache.rows(first, count);
            }
            // A copy: a view would show freed memory after free().
            py::array_t<bool> result({count, first + count});
            for (py::ssize_t row = 0; row < count; ++row) {
              std::copy_n(rows.data + row * rows.stride, first + count,
                          reinterpret_cast<std::uint8_t*>(result.mutable_data(row)));
            }
            return result;
          },
          py::arg("first"), py::arg("count"),
          "What positions first ... first + count - 1 may see: bool [count, first + count], a copy.")
      .def(
          "write_additive",
          [](MaskCache& cache, std::int64_t first, py::array_t<float>& out) {
            if (out.ndim() != 2 || out.shape(1) != first + out.shape(0)) {
              throw std::invalid_argument("out must be [count, first + count]");
            }
            constexpr auto kItem = static_cast<py::ssize_t>(sizeof(float));
            if (out.strides(1) != kItem || out.strides(0) % kItem != 0 || out.strides(0) < 0) {
              throw std::invalid_argument("out must be in C order; its rows may lie apart");
            }
            float* target = out.mutable_data();
            const py::ssize_t count = out.shape(0);
            const py::ssize_t stride = out.strides(0) / kItem;
            py::gil_scoped_release release;
            cache.write_additive(first, count, target, stride);
          },
          py::arg("first"), py::arg("out").noconvert(),
          "Write the same rows into float32 out [count, first + count]: 0 = may attend, -inf = may not.")
      .def("free", &MaskCache::free, py::call_guard<py::gil_scoped_release>(), "Give the memory back.")
      .def_property_readonly("sizes", &MaskCache::sizes)
      .def_property_readonly("nbytes", &MaskCache::nbytes);
}

}  // namespace sabiyarn::bindings
