// Kernels for x86-64 with AVX2 and FMA (Haswell, Zen and later).
#pragma once

#include "hccs/kernel.h"

namespace hccs {
extern const Kernels kAvx2Kernels;
}
