// tests/native/check.hpp - CHECK and a count of what failed; that is all the framework these tests need.
#pragma once

#include <atomic>
#include <cstdio>

inline std::atomic<int>& failed_checks() {  // checks may fail in several threads
  static std::atomic<int> count = 0;
  return count;
}

#define CHECK(condition)                                                  \
  do {                                                                    \
    if (!(condition)) {                                                   \
      std::printf("%s:%d: failed: %s\n", __FILE__, __LINE__, #condition); \
      ++failed_checks();                                                  \
    }                                                                     \
  } while (false)

#define CHECK_THROWS(expression, type) \
  do {                                 \
    bool caught = false;               \
    try {                              \
      expression;                      \
    } catch (const type&) {            \
      caught = true;                   \
    }                                  \
    CHECK(caught && #expression);      \
  } while (false)

// What main returns.
inline int outcome() { return failed_checks() == 0 ? 0 : 1; }
