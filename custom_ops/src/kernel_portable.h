// Kernels in plain C++17, for processors without kernels of their own and as the yardstick for those with.
#pragma once

#include "hccs/kernel.h"

namespace hccs {
extern const Kernels kPortableKernels;
}
