// csrc/bindings/bindings.hpp - one register function for each concept of the core.
#pragma once

#include <pybind11/pybind11.h>

namespace sabiyarn::bindings {

void register_choice_automaton(pybind11::module_& module);
void register_decode_options(pybind11::module_& module);
void register_decode_state(pybind11::module_& module);
void register_kv_cache(pybind11::module_& module);
void register_linear(pybind11::module_& module);
void register_mask_cache(pybind11::module_& module);
void register_memory_read(pybind11::module_& module);
void register_prompt_lookup(pybind11::module_& module);
void register_selection(pybind11::module_& module);
void register_step_buffers(pybind11::module_& module);
void register_stop_strings(pybind11::module_& module);

}  // namespace sabiyarn::bindings
