// csrc/operators/input_shapes.hpp - checks of the shapes of an operator's inputs, which a graph may state as it likes.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>

#include "operators/operator.hpp"

namespace sabiyarn {

inline std::string text_of(Shape shape) {
  std::string result = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) result += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return result + "]";
}

// Of the first `count` sizes. Throws std::invalid_argument if they are too large together.
inline std::int64_t product(Shape shape, std::size_t count) {
  std::int64_t result = 1;
  for (std::size_t i = 0; i < count; ++i) {
    if (__builtin_mul_overflow(result, shape[i], &result)) {
      throw std::invalid_argument("a tensor of shape " + text_of(shape) + " is too large");
    }
  }
  return result;
}

// Throws std::invalid_argument if an input has another shape.
inline void require_shape(const Input& input, const char* name, Shape expected) {
  if (std::ranges::equal(input.shape, expected)) return;
  throw std::invalid_argument(std::string(name) + " has shape " + text_of(input.shape) + "; it must be " +
                              text_of(expected));
}

inline void require_shape(const Input& input, const char* name,
                          std::initializer_list<std::int64_t> expected) {
  require_shape(input, name, Shape(expected.begin(), expected.size()));
}

// The same for an input that may be left out.
inline void check_shape(const Input& input, const char* name, Shape expected) {
  if (input) require_shape(input, name, expected);
}

inline void check_shape(const Input& input, const char* name, std::initializer_list<std::int64_t> expected) {
  if (input) require_shape(input, name, expected);
}

}  // namespace sabiyarn
