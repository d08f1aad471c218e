// Shift, round, saturate: the way from an accumulator lane to a vector lane, in this order.
// Modes and their order as in the intrinsics guides ("Shift-Round-Saturate", UG1583 for AIE-ML), shift ranges too.
#pragma once

#include <limits>
#include <type_traits>

#include "../../emulation/error.hpp"
#include "../../emulation/state.hpp"
#include "traits.hpp"

namespace aie::detail {

// Beyond these the hardware gives something else than a shift. AIE-ML takes -4 to -2 where nothing saturates; here not.
inline constexpr int min_shift = -1;
inline constexpr int max_shift = is_aie ? 62 : 59;

// W is wide enough for value << 1.
template <class W>
constexpr W shift_and_round(W value, int shift, rounding_mode mode) {
  if (shift <= 0) return value * (W{1} << -shift);
  const W down = value >> shift;
  const W rest = value - down * (W{1} << shift);  // 0 <= rest < 2^shift
  if (rest == 0) return down;
  const W half = W{1} << (shift - 1);
  const bool up = [&] {
    switch (mode) {
      case rounding_mode::floor:
        return false;
      case rounding_mode::ceil:
        return true;
      case rounding_mode::positive_inf:
        return rest >= half;
      case rounding_mode::negative_inf:
        return rest > half;
      case rounding_mode::symmetric_inf:
        return value >= 0 ? rest >= half : rest > half;
      case rounding_mode::symmetric_zero:
        return value >= 0 ? rest > half : rest >= half;
      case rounding_mode::conv_even:
        return rest > half || (rest == half && (down & 1) != 0);
      case rounding_mode::conv_odd:
        return rest > half || (rest == half && (down & 1) == 0);
#if __AIE_ARCH__ != 10
      case rounding_mode::symmetric_floor:
        return value < 0;
      case rounding_mode::symmetric_ceil:
        return value > 0;
#endif
    }
    emulation::fail("rounding mode %u does not exist", static_cast<unsigned>(mode));
  }();
  return up ? down + 1 : down;
}

template <class T, class W>
constexpr T saturate(W value, saturation_mode mode) {
  if (mode == saturation_mode::none) return static_cast<T>(value);  // the low bits
  constexpr W high = std::numeric_limits<T>::max();
  constexpr W low = std::numeric_limits<T>::min();
  const W floor = mode == saturation_mode::symmetric && std::is_signed_v<T> ? -high : low;
  return static_cast<T>(value > high ? high : value < floor ? floor : value);
}

template <class T, class W>
T shift_round_saturate(W value, int shift) {
  const emulation::control_registers& registers = emulation::state().registers;
  return saturate<T>(shift_and_round(value, shift, registers.rounding), registers.saturation);
}

inline void require_shift(int shift) {
  if (shift < min_shift || shift > max_shift) {
    emulation::fail("shift out of range (%d, needs %d..%d)", shift, min_shift, max_shift);
  }
}

}  // namespace aie::detail
