#pragma once

#include "hccs/kernel.h"

namespace hccs {

extern const Kernels kAvx2Kernels;

// The table's last function, in a file of its own.
void avx2_float_rows(const float* x, float* y, size_t rows, size_t n, const Head& head, const Form& form);

}  // namespace hccs
