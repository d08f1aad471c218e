// Intrinsics that kernels call without a namespace.
#pragma once

#include <bit>

#include "../../emulation/counters.hpp"
#include "../../emulation/types.hpp"

// Leading bits equal to the sign bit (int), leading zeros (unsigned).
inline int clb(unsigned value) {
  emulation::count(&emulation::operation_counts::scalar);
  return std::countl_zero(value);
}
inline int clb(int value) {
  return clb(static_cast<unsigned>(value < 0 ? ~value : value));
}

// Marks for the device's trace unit.
inline void event0() {}
inline void event1() {}
