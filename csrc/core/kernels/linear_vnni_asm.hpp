// csrc/core/kernels/linear_vnni_asm.hpp - whether VNNI's dot product is written as inline assembly (1) or as an
// intrinsic (0).
//
// GCC gives the sums of its dpbusd intrinsics new registers (gcc.gnu.org/bugzilla, bug 94663; GCC 12 still does): it
// copies each of them twice and spills once they no longer fit (measured: 512 bits with 8 rows are then slower than 256
// bits with 4). With sums as an operand that the assembly reads and writes it does not. A compiler without the bug
// schedules intrinsics better. The build looks which kind the compiler is of (build_support/vnni_copies.cpp).
#pragma once

#ifndef SABIYARN_VNNI_ASM
#error "define SABIYARN_VNNI_ASM as 1 or 0"
#endif
