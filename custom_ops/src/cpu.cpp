#include "cpu.h"

#if defined(_MSC_VER) && (defined(_M_X64) || defined(_M_IX86))
#include <immintrin.h>
#include <intrin.h>
#endif

namespace hccs {

#if defined(__x86_64__) || defined(__i386__)

bool cpu_has_avx2_fma() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
}

// Not asked for where the kernels were left out: such compilers may not know the names.
bool cpu_has_avx512() {
#if defined(HCCS_BUILD_AVX512)
  return cpu_has_avx2_fma() && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
         __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
         __builtin_cpu_supports("avx512vbmi") != 0 && __builtin_cpu_supports("avx512vnni") != 0;
#else
  return false;
#endif
}

#elif defined(_M_X64) || defined(_M_IX86)

bool cpu_has_avx2_fma() {
  int leaf[4];
  __cpuid(leaf, 0);
  if (leaf[0] < 7) return false;
  __cpuid(leaf, 1);
  const bool fma = (leaf[2] & (1 << 12)) != 0;
  const bool os_saves_registers = (leaf[2] & (1 << 27)) != 0 && (_xgetbv(0) & 6) == 6;
  __cpuidex(leaf, 7, 0);
  const bool avx2 = (leaf[1] & (1 << 5)) != 0;
  return fma && os_saves_registers && avx2;
}

bool cpu_has_avx512() {
  if (!cpu_has_avx2_fma() || (_xgetbv(0) & 0xe6) != 0xe6) return false;
  int leaf[4];
  __cpuidex(leaf, 7, 0);
  constexpr int f = 1 << 16, dq = 1 << 17, bw = 1 << 30, vbmi = 1 << 1, vnni = 1 << 11;
  const bool vl = leaf[1] < 0;  // bit 31
  return (leaf[1] & (f | dq | bw)) == (f | dq | bw) && vl && (leaf[2] & (vbmi | vnni)) == (vbmi | vnni);
}

#else

bool cpu_has_avx2_fma() {
  return false;
}

bool cpu_has_avx512() {
  return false;
}

#endif

#if defined(__aarch64__) || defined(_M_ARM64)
bool cpu_has_neon() {
  return true;
}  // part of the architecture
#else
bool cpu_has_neon() {
  return false;
}
#endif

}  // namespace hccs
