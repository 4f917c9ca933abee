// csrc/bindings/testing/kernel_sets.hpp - the kernels of this CPU that a test names.
#pragma once

#include <span>
#include <stdexcept>
#include <string>

namespace sabiyarn::bindings::testing {

template <typename Kernels>
const Kernels& find_kernels(std::span<const Kernels* const> usable, const std::string& name) {
  std::string names;
  for (const Kernels* kernels : usable) {
    if (name == kernels->name) return *kernels;
    names += (names.empty() ? "'" : ", '") + std::string(kernels->name) + "'";
  }
  throw std::invalid_argument("kernels is '" + name + "'; this CPU has " + names);
}

}  // namespace sabiyarn::bindings::testing
