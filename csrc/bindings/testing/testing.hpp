// csrc/bindings/testing/testing.hpp - what only tests and benchmarks call of the core, each part with one register function.
#pragma once

#include <pybind11/pybind11.h>

namespace sabiyarn::bindings::testing {

void register_attention(pybind11::module_& module);
void register_dot_product_peak(pybind11::module_& module);
void register_exact_math(pybind11::module_& module);
void register_half(pybind11::module_& module);
void register_linear(pybind11::module_& module);
void register_prompt_lookup(pybind11::module_& module);
void register_score_functions(pybind11::module_& module);
void register_stop_strings(pybind11::module_& module);
void register_window_ring(pybind11::module_& module);

}  // namespace sabiyarn::bindings::testing
