// Settings of the emulation, all by macro:
//   __AIE_ARCH__                10 AIE, 20 AIE-ML (XDNA 1), 21 XDNA 2, 22 AIE-MLv2
//   AIE_EMULATION_SEED          first value of poison and control registers; the environment variable of this name wins
//   AIE_EMULATION_TRAP          1: an accumulator that wraps is an error
//   AIE_EMULATION_COUNT         0: operations are not counted
//   AIE_EMULATION_INV_NOISE     aie::inv and aie::invsqrt are off by up to this many units in the last place
#pragma once

#if __cplusplus < 202002L
#error "the AIE API needs C++20: compile with -std=c++20"
#endif

#ifndef __AIE_ARCH__
#define __AIE_ARCH__ 20
#endif
#if __AIE_ARCH__ != 10 && __AIE_ARCH__ != 20 && __AIE_ARCH__ != 21 && __AIE_ARCH__ != 22
#error "unknown __AIE_ARCH__: 10 (AIE), 20 (AIE-ML), 21 (XDNA 2) and 22 (AIE-MLv2) are emulated"
#endif

// Sources ask for __AIENGINE__ to tell code for the array from code for the host.
#ifndef __AIENGINE__
#define __AIENGINE__ 1
#endif
#define __AIE_EMULATION__ 1

#ifndef AIE_EMULATION_SEED
#define AIE_EMULATION_SEED 1
#endif
#ifndef AIE_EMULATION_TRAP
#define AIE_EMULATION_TRAP 0
#endif
#ifndef AIE_EMULATION_COUNT
#define AIE_EMULATION_COUNT 1
#endif
#ifndef AIE_EMULATION_INV_NOISE
#define AIE_EMULATION_INV_NOISE 4096
#endif

namespace emulation {

inline constexpr int arch = __AIE_ARCH__;
inline constexpr bool is_aie = arch == 10;                  // the first generation; the others are called ML here
inline constexpr bool is_ml_v2 = arch == 21 || arch == 22;  // 512-bit loads, twice the multipliers

// Bytes to which the widest memory access has to be aligned.
inline constexpr unsigned memory_alignment = is_aie ? 16 : is_ml_v2 ? 64 : 32;

}  // namespace emulation
