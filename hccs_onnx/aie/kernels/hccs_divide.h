// Exact integer quotients of many lanes at once, by restoring division: there is no vector divide, a scalar one takes
// some 40 cycles, and aie::inv is an approximation.
#pragma once

#include "hccs_arch.h"

namespace hccs {

// floor of a numerator over z, a bit a step. The numerator's bits are those of `remainder`, then `steps` bits that are
// all Ones. Needs 0 <= remainder < z <= 2^30 and a quotient < 2^15; from remainder = z, where the quotient would be
// 2^steps, comes 2^steps - 1.
template <bool Ones>
aie::vector<int32, 16> divide_wide(aie::vector<int32, 16> remainder, const aie::vector<int32, 16>& z, unsigned steps) {
  const aie::vector<int32, 16> one = aie::broadcast<int32, 16>(1);
  aie::vector<int32, 16> quotient = aie::zeros<int32, 16>();
  for (unsigned step = 0; step < steps; ++step) {
    remainder = aie::add(remainder, remainder);
    if constexpr (Ones) remainder = aie::add(remainder, one);
    const auto fits = aie::ge(remainder, z);
    remainder = aie::select(remainder, aie::sub(remainder, z), fits);
    quotient = aie::add(quotient, quotient);
    quotient = aie::select(quotient, aie::add(quotient, one), fits);
  }
  return quotient;
}

#if __AIE_ARCH__ != 10
// The same for z < 2^15 in three operations a step. The upper half of a lane is the remainder, the lower half the
// quotient; where the remainder is below z, subtracting z wraps to something larger, so an unsigned minimum selects.
template <bool Ones>
aie::vector<int32, 16> divide_narrow(const aie::vector<int32, 16>& remainder, const aie::vector<int32, 16>& z,
                                     unsigned steps) {
  using Lanes = aie::vector<uint32, 16>;
  const Lanes subtrahend =
      aie::sub(aie::upshift(z, 16).template cast_to<uint32>(), uint32(1));  // - z, + 1 to the quotient
  const Lanes one = aie::broadcast<uint32, 16>(uint32(1) << 16);
  Lanes lanes = aie::upshift(remainder, 16).template cast_to<uint32>();
  for (unsigned step = 0; step < steps; ++step) {
    lanes = aie::add(lanes, lanes);
    if constexpr (Ones) lanes = aie::add(lanes, one);
    lanes = aie::min(lanes, aie::sub(lanes, subtrahend));
  }
  return aie::bit_and(lanes, aie::broadcast<uint32, 16>(0xffff)).template cast_to<int32>();
}
#endif

// 32 quotients; `narrow` says that z < 2^15.
template <bool Ones>
aie::vector<int32, 32> divide(const aie::vector<int32, 32>& remainder, const aie::vector<int32, 32>& z, unsigned steps,
                              [[maybe_unused]] bool narrow) {
  const auto r0 = remainder.template extract<16>(0), r1 = remainder.template extract<16>(1);
  const auto z0 = z.template extract<16>(0), z1 = z.template extract<16>(1);
#if __AIE_ARCH__ != 10
  if (narrow) return aie::concat(divide_narrow<Ones>(r0, z0, steps), divide_narrow<Ones>(r1, z1, steps));
#endif
  return aie::concat(divide_wide<Ones>(r0, z0, steps), divide_wide<Ones>(r1, z1, steps));
}

}  // namespace hccs
