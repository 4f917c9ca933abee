// tests/campaigns/fuzz/native/require.hpp - how a fuzz target tells that something does not hold: it ends.
#pragma once

#include <cstdio>
#include <cstdlib>

inline void require(bool condition, const char* what) {
  if (condition) return;
  std::fprintf(stderr, "does not hold: %s\n", what);
  std::abort();
}
