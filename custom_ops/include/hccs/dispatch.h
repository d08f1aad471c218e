// The one list of kernels: dispatch, tester and benchmark all read it.
#pragma once

#include <cstddef>

#include "hccs/kernel.h"

namespace hccs {

// Environment variable that overrides the choice with a name from the list.
constexpr const char* kKernelVariable = "HCCS_KERNEL";

// Kernels compiled into this library, best first; the last ones run everywhere. Null past the end.
size_t kernel_count();
const Kernels* kernels_at(size_t index);

// Kernels to use now: those named by HCCS_KERNEL where it is set and not empty, otherwise the first in the list that
// runs here. Null when HCCS_KERNEL names kernels that do not exist or do not run here.
const Kernels* select_kernels();

}  // namespace hccs
