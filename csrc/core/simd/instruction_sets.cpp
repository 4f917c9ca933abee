#include "core/simd/instruction_sets.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#endif

namespace sabiyarn {

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
bool has_avx2() noexcept { return __builtin_cpu_supports("avx2") != 0; }
bool has_avx2_f16c_fma() noexcept {
  return has_avx2() && __builtin_cpu_supports("fma") != 0 && cpuid_bit(1, 0, false, 29);
}
bool has_avx_vnni() noexcept { return has_avx2() && cpuid_bit(7, 1, true, 4); }
bool has_avx512_vnni() noexcept {
  return __builtin_cpu_supports("avx512vnni") != 0 && __builtin_cpu_supports("avx512vl") != 0;
}
bool has_dot_product() noexcept { return false; }

#else

bool has_avx2() noexcept { return false; }
bool has_avx2_f16c_fma() noexcept { return false; }
bool has_avx_vnni() noexcept { return false; }
bool has_avx512_vnni() noexcept { return false; }
bool has_dot_product() noexcept {
#if defined(__aarch64__) && defined(__linux__)
  return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#elif defined(__APPLE__)
  int present = 0;
  std::size_t size = sizeof present;
  return sysctlbyname("hw.optional.arm.FEAT_DotProd", &present, &size, nullptr, 0) == 0 && present != 0;
#else
  return false;
#endif
}

#endif

}  // namespace sabiyarn
