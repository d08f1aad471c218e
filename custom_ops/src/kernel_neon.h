// Kernels for aarch64, on which NEON is always there; the Arm cores of Versal devices among them.
#pragma once

#include "hccs/kernel.h"

namespace hccs {
extern const Kernels kNeonKernels;
}
