// csrc/bindings/module.cpp - sabiyarn_edge._core, the core's Python module. Each concept registers itself.
#include "bindings/bindings.hpp"

PYBIND11_MODULE(_core, module) {
  module.doc() = "Compiled core of sabiyarn_edge: KV cache, score pipeline, selection, step buffers.";
  sabiyarn::bindings::register_choice_automaton(module);
  sabiyarn::bindings::register_decode_options(module);
  sabiyarn::bindings::register_decode_state(module);
  sabiyarn::bindings::register_kv_cache(module);
  sabiyarn::bindings::register_linear(module);
  sabiyarn::bindings::register_mask_cache(module);
  sabiyarn::bindings::register_memory_read(module);
  sabiyarn::bindings::register_prompt_lookup(module);
  sabiyarn::bindings::register_selection(module);
  sabiyarn::bindings::register_step_buffers(module);
  sabiyarn::bindings::register_stop_strings(module);
}
