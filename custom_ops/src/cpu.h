// What this processor and operating system can run.
#pragma once

namespace hccs {

bool cpu_has_avx2_fma();  // and the operating system saves the 256-bit registers
bool cpu_has_avx512();    // F, BW, DQ, VL, VBMI and VNNI, on top of AVX2; and the 512-bit registers
bool cpu_has_neon();

}  // namespace hccs
