// csrc/core/kernels/linear_vnni_asm.hpp - whether VNNI's dot product is written as inline assembly or as an intrinsic.
//
// GCC 12 gives the sums of its dpbusd intrinsics new registers: it copies each of them twice and spills once they no
// longer fit (measured: 512 bits with 8 rows are then slower than 256 bits with 4). With sums as an operand that the
// assembly reads and writes it does not. Clang needs no help, and schedules intrinsics better.
#pragma once

#if defined(__GNUC__) && !defined(__clang__) && !defined(SABIYARN_VNNI_INTRINSICS)
#define SABIYARN_VNNI_ASM 1
#else
#define SABIYARN_VNNI_ASM 0
#endif
