#include "core/simd/instruction_sets.hpp"

#include <cstddef>
#include <cstdlib>
#include <iterator>
#include <string_view>

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace sabiyarn {

namespace {

// From the lowest. A set that is not of this architecture leaves only the baseline.
enum class Level { kPlain, kAvx2, kAvxVnni, kAvx512Vnni, kDotProduct, kI8mm };

bool may_use(Level level) noexcept {
  static const std::string_view highest = [] {
    const char* name = std::getenv("SABIYARN_EDGE_ISA");
    return std::string_view(name == nullptr ? "" : name);
  }();
  constexpr std::string_view kNames[] = {"plain", "avx2", "avx_vnni", "avx512_vnni", "dot_product", "i8mm"};
  for (std::size_t at = 0; at < std::size(kNames); ++at) {
    if (kNames[at] == highest) return static_cast<std::size_t>(level) <= at;
  }
  return true;
}

}  // namespace

#if defined(__x86_64__)

namespace {

// Bits of cpuid(7, 1).eax and cpuid(1).ecx (Intel's Software Developer's Manual, volume 2, CPUID).
bool cpuid_bit(unsigned leaf, unsigned subleaf, bool eax_not_ecx, unsigned bit) noexcept {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid_count(leaf, subleaf, &eax, &ebx, &ecx, &edx) == 0) return false;
  return (((eax_not_ecx ? eax : ecx) >> bit) & 1u) != 0;
}

}  // namespace

// The compiler's check also asks whether the system saves the wide registers.
bool has_avx2() noexcept { return may_use(Level::kAvx2) && __builtin_cpu_supports("avx2") != 0; }
bool has_avx2_f16c_fma() noexcept {
  return has_avx2() && __builtin_cpu_supports("fma") != 0 && cpuid_bit(1, 0, false, 29);
}
bool has_avx_vnni() noexcept { return may_use(Level::kAvxVnni) && has_avx2() && cpuid_bit(7, 1, true, 4); }
bool has_avx512_vnni() noexcept {
  return may_use(Level::kAvx512Vnni) && __builtin_cpu_supports("avx512f") != 0 &&
         __builtin_cpu_supports("avx512vnni") != 0 && __builtin_cpu_supports("avx512vl") != 0;
}
bool has_dot_product() noexcept { return false; }
bool has_i8mm() noexcept { return false; }

#else

bool has_avx2() noexcept { return false; }
bool has_avx2_f16c_fma() noexcept { return false; }
bool has_avx_vnni() noexcept { return false; }
bool has_avx512_vnni() noexcept { return false; }
#if defined(__APPLE__)
namespace {
bool has_feature(const char* name) noexcept {
  int present = 0;
  std::size_t size = sizeof present;
  return sysctlbyname(name, &present, &size, nullptr, 0) == 0 && present != 0;
}
}  // namespace
#endif

bool has_dot_product() noexcept {
  if (!may_use(Level::kDotProduct)) return false;
#if defined(__aarch64__) && defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__APPLE__)
  return has_feature("hw.optional.arm.FEAT_DotProd");
#else
  return false;
#endif
}
bool has_i8mm() noexcept {
  if (!may_use(Level::kI8mm) || !has_dot_product()) return false;
#if defined(__aarch64__) && defined(__linux__)
  constexpr unsigned long kI8mm = 1ul << 13;  // HWCAP2_I8MM, which older headers lack
  return (getauxval(AT_HWCAP2) & kI8mm) != 0;
#elif defined(__APPLE__)
  return has_feature("hw.optional.arm.FEAT_I8MM");
#else
  return false;
#endif
}

#endif

}  // namespace sabiyarn
