// What both kernels share: their modes, parameters and the sizes that follow from a row length.
#pragma once

#include <cstdint>
#include <limits>

#include "hccs_arch.h"

namespace hccs {

// How the row sum Z is inverted; k = floor(log2 Z). See docs/operator.md.
enum class Reciprocal { div, clb, norm };

constexpr int mask_code = -128;  // in a masked kernel this code has probability 0

constexpr unsigned round_up(unsigned value, unsigned step) {
  return (value + step - 1) / step * step;
}
constexpr unsigned padded_columns(unsigned n) {
  return round_up(n, 32);
}

// One head's parameters, out of the four int32 a head that a kernel is given.
struct Head {
  int32 B, S, Dmax;

  explicit Head(const int32* values) : B(values[0]), S(values[1]), Dmax(values[2]) {}
  int32 floor() const { return B - S * Dmax; }
};

}  // namespace hccs
