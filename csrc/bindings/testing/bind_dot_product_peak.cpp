// Products per second of a set's dot product instructions, on registers alone: what its kernels can reach at best.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "bindings/testing/kernel_sets.hpp"
#include "bindings/testing/testing.hpp"
#include "core/kernels/linear.hpp"
#include "core/simd/dispatched.hpp"
#include "core/simd/lanes.hpp"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace py = pybind11;

namespace sabiyarn::bindings::testing {

namespace {

// As many sums as the kernels have: an instruction waits for none before it.
constexpr int kSums = 8;

// Each loop adds to all sums `count` times and returns the products of one addition. Operands stand in assembly as read
// and written, so that the compiler can neither know nor drop what comes of them.
#if defined(__x86_64__)

using Register = std::int32_t __attribute__((vector_size(32)));
using WideRegister = std::int32_t __attribute__((vector_size(64)));

SABIYARN_DISPATCHED("avx2") std::int64_t avx2(std::int64_t count) {
  __m256i sums[kSums] = {}, codes = {}, weights = {}, magnitudes = {};
  const __m256i ones = _mm256_set1_epi16(1);
  for (std::int64_t i = 0; i < count; ++i) {
    SABIYARN_UNROLL
    for (__m256i& sum : sums) {
      asm volatile("" : "+x"(codes), "+x"(weights), "+x"(magnitudes));
      const __m256i pairs = _mm256_maddubs_epi16(magnitudes, _mm256_sign_epi8(codes, weights));
      sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, ones));
    }
  }
  for (__m256i& sum : sums) asm volatile("" : "+x"(sum));
  return kSums * 32;
}

SABIYARN_DISPATCHED("avx2") std::int64_t avx_vnni(std::int64_t count) {
  Register sums[kSums] = {}, codes = {}, weights = {};
  for (std::int64_t i = 0; i < count; ++i) {
    SABIYARN_UNROLL
    for (Register& sum : sums)
      asm volatile("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(weights), "x"(codes));
  }
  return kSums * 32;
}

SABIYARN_DISPATCHED("avx512f") std::int64_t avx512_vnni(std::int64_t count) {
  WideRegister sums[kSums] = {}, codes = {}, weights = {};
  for (std::int64_t i = 0; i < count; ++i) {
    SABIYARN_UNROLL
    for (WideRegister& sum : sums) asm volatile("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(codes));
  }
  return kSums * 64;
}

#elif defined(__aarch64__)

SABIYARN_DISPATCHED("arch=armv8.2-a+dotprod") std::int64_t dot_product(std::int64_t count) {
  int32x4_t sums[kSums] = {};
  int8x16_t codes = {}, weights = {};
  for (std::int64_t i = 0; i < count; ++i) {
    SABIYARN_UNROLL
    for (int32x4_t& sum : sums) {
      asm volatile("sdot %0.4s, %1.16b, %2.4b[0]" : "+w"(sum) : "w"(weights), "w"(codes));
    }
  }
  return kSums * 16;
}

SABIYARN_DISPATCHED("arch=armv8.2-a+i8mm") std::int64_t i8mm(std::int64_t count) {
  int32x4_t sums[kSums] = {};
  int8x16_t codes = {}, weights = {};
  for (std::int64_t i = 0; i < count; ++i) {
    SABIYARN_UNROLL
    for (int32x4_t& sum : sums) {
      asm volatile("smmla %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(weights), "w"(codes));
    }
  }
  return kSums * 32;
}

#endif

using Loop = std::int64_t (*)(std::int64_t count);

Loop loop_of(const std::string& kernels) {
#if defined(__x86_64__)
  if (kernels == "avx2") return avx2;
  if (kernels == "avx_vnni") return avx_vnni;
  if (kernels == "avx512_vnni") return avx512_vnni;
#elif defined(__aarch64__)
  if (kernels == "dot_product") return dot_product;
  if (kernels == "i8mm") return i8mm;
#endif
  throw std::invalid_argument("the kernels '" + kernels + "' have no dot products of bytes");
}

}  // namespace

void register_dot_product_peak(py::module_& module) {
  module.def(
      "dot_product_peak",
      [](const std::string& kernels, double seconds) {
        const Loop loop = loop_of(find_kernels(linear_kernels(), kernels).name);
        const py::gil_scoped_release release;
        using Clock = std::chrono::steady_clock;
        constexpr std::int64_t kCount = 20'000;  // about a tenth of a millisecond
        double best = 0.0;
        const auto first = Clock::now();
        for (auto started = first; std::chrono::duration<double>(started - first).count() < seconds;) {
          const std::int64_t products = loop(kCount);
          const auto ended = Clock::now();
          const double spent = std::chrono::duration<double>(ended - started).count();
          best = std::max(best, static_cast<double>(products * kCount) / spent);
          started = ended;
        }
        return best;
      },
      py::arg("kernels"), py::arg("seconds") = 0.01,
      "Products of bytes per second on one core, the best of many short spans: what the instructions of "
      "_core's\n"
      "linear_kernels() do with registers alone, without loads, scales or stores.\n\n"
      "Raises ValueError for kernels that this CPU lacks, or that are no such instructions (\"plain\").");
}

}  // namespace sabiyarn::bindings::testing
