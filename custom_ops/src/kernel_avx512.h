#pragma once

#include "hccs/kernel.h"

namespace hccs {

extern const Kernels kAvx512Kernels;

// The last member of the table, in a file of its own.
void avx512_float_rows(const float* x, float* y, size_t rows, size_t n, const Head& head, const Form& form);

}  // namespace hccs
