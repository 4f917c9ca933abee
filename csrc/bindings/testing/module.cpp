// csrc/bindings/testing/module.cpp - sabiyarn_edge._core_testing: parts of the core that the package uses from C++ only,
// for tests against their twins. Wheels leave it out.
#include "bindings/testing/testing.hpp"

PYBIND11_MODULE(_core_testing, module) {
  module.doc() = "Parts of the core that only tests and benchmarks call.";
  pybind11::module_::import("sabiyarn_edge._core");  // registers the classes that functions here take
  sabiyarn::bindings::testing::register_attention(module);
  sabiyarn::bindings::testing::register_dot_product_peak(module);
  sabiyarn::bindings::testing::register_exact_math(module);
  sabiyarn::bindings::testing::register_half(module);
  sabiyarn::bindings::testing::register_linear(module);
  sabiyarn::bindings::testing::register_prompt_lookup(module);
  sabiyarn::bindings::testing::register_score_functions(module);
  sabiyarn::bindings::testing::register_stop_strings(module);
  sabiyarn::bindings::testing::register_window_ring(module);
}
