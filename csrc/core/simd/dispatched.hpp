// csrc/core/simd/dispatched.hpp - marks a function whose instructions go beyond the baseline (x86-64, armv8-a).
//
// Call it only after a check of the CPU (instruction_sets.hpp). The function is placed in the section "dispatched",
// which stripping keeps: tests/test_instruction_baseline.py disassembles the built modules and allows newer
// instructions only there.
#pragma once

#if defined(__APPLE__)  // Mach-O names sections differently, and the test runs on ELF files
#define SABIYARN_DISPATCHED(isa) __attribute__((target(isa)))
#else
#define SABIYARN_DISPATCHED(isa) __attribute__((target(isa), section("dispatched")))
#endif
