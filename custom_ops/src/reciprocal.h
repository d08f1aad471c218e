// Row sums and their integer reciprocals, shared by the kernels of all instruction sets.
//
// Everything here has internal linkage on purpose: each kernel file is compiled for another instruction set, and the
// linker must not pick, say, the AVX2 copy of a function for all of them. For the same reason kernel files use no
// templates of the standard library.
#pragma once

#include <cfloat>
#include <cstdint>
#include <cstring>

#include "hccs/kernel.h"

// For what is rare, so that it takes no registers and no room where things are fast.
#if defined(_MSC_VER)
#define HCCS_RARE __declspec(noinline)
#else
#define HCCS_RARE __attribute__((noinline))
#endif

namespace hccs {

// The x87 unit of 32-bit x86 keeps more places, so that differences and quotients are not rounded as defined. 16 is 0
// with half precision beside it.
static_assert(FLT_EVAL_METHOD == 0 || FLT_EVAL_METHOD == 16,
              "HCCS is exact only where floats are computed as floats; on x86, use -mfpmath=sse");

// The code that is the mask where Form::masked is set; no real logit has it then.
static constexpr int kMaskCode = -128;

static inline uint64_t double_bits(double value) {
  uint64_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline double to_double(uint64_t value) {  // by way of int64, which processors convert directly
  return static_cast<double>(static_cast<int64_t>(value));
}

// floor(log2(value)), 1 <= value < 2^53.
static inline uint32_t floor_log2(uint64_t value) {
  return static_cast<uint32_t>(double_bits(to_double(value)) >> 52) - 1023;
}

// floor(numerator / Z) for 0 <= numerator < 2^24 and 1 <= Z < 2^48. Where the double quotient is rounded it cannot
// reach an integer: it is at least 1/Z below the next one if Z <= numerator, and below 1 otherwise.
static inline uint32_t floor_quotient(uint32_t numerator, uint64_t Z) {
  return static_cast<uint32_t>(static_cast<int32_t>(static_cast<double>(numerator) / to_double(Z)));
}

static inline uint32_t limited(uint32_t rho) {
  return rho < 32767 ? rho : 32767;
}

// The reciprocals rho of a row sum 1 <= Z < 2^48.
//
// norm: floor(2^(15+k)/Z) = floor(2^15/m) with the significand m = Z/2^k, 1 <= m < 2; k is floor_log2(Z). The quotient
// is at most 2^15, where doubles are 2^-37 apart, and at least 1/Z below the next integer: no rounding up to it where Z
// < 2^36. Elsewhere one step back puts it right.
static inline uint32_t rho_norm(uint64_t Z, uint32_t exponent) {
  const uint64_t bits = (double_bits(to_double(Z)) & 0x000fffffffffffff) | 0x3ff0000000000000;
  double significand;
  memcpy(&significand, &bits, sizeof significand);
  uint32_t rho = static_cast<uint32_t>(static_cast<int32_t>(32768.0 / significand));
  if (Z >> 36 != 0 && rho * Z > static_cast<uint64_t>(1) << (15 + exponent)) --rho;
  return limited(rho);
}

static inline uint32_t rho_uint8(Reciprocal reciprocal, uint64_t Z) {
  const uint64_t divisor = reciprocal == Reciprocal::kDiv ? Z : static_cast<uint64_t>(1) << floor_log2(Z);
  return limited(floor_quotient(255 << 15, divisor));
}

static inline uint32_t rho_int16(Reciprocal reciprocal, uint64_t Z) {
  const uint64_t divisor = reciprocal == Reciprocal::kDiv ? Z : static_cast<uint64_t>(1) << floor_log2(Z);
  return floor_quotient(32767, divisor);
}

// What one pass over a row of codes finds.
struct GapSum {
  uint64_t gaps;    // sum of min(m - x, Dmax) over all positions, masked ones included
  uint64_t hidden;  // number of positions with the mask code; 0 where masking is off
};

// Row sum Z. Masked positions were counted as if they were logits: all with the gap between m and the mask code, so one
// multiplication takes them out again.
static inline uint64_t row_sum(const Head& head, size_t n, int maximum, const GapSum& sum) {
  const uint64_t B = static_cast<uint64_t>(head.B), S = static_cast<uint64_t>(head.S);
  const int gap = maximum - kMaskCode;
  const uint64_t mask_gap = static_cast<uint64_t>(gap < head.Dmax ? gap : head.Dmax);
  return (n - sum.hidden) * B - S * (sum.gaps - sum.hidden * mask_gap);
}

// How a kernel computes with 16-bit lanes. The lane holds the score times a power of two, w = (B - S*d) << lift, below
// 2^16; `high` is the upper half of the 32-bit product w*rho.
//   div, clb to uint8   lift 1              y = min(255, high)
//   div, clb to int16   lift 0              y = min(32767, w*rho), the product below 2^16
//   norm                lift 15-log2(B)     y = min(cap, (high + 2^(shift-1)) >> shift), shift = floor(log2 Z) - base
// For norm to uint8, shift is always at least 6. For norm to int16 it is below 1 for rows in which one key has nearly
// all the mass; those need a lane of 32 bits.
struct LaneForm {
  uint32_t B, S;  // lifted
  int32_t base;   // norm only
};

static inline LaneForm lane_form(const Head& head, uint32_t lift, int32_t base) {
  return {static_cast<uint32_t>(head.B) << lift, static_cast<uint32_t>(head.S) << lift, base};
}

static inline LaneForm lane_form_norm(const Head& head, int32_t output_bits) {
  const uint32_t exponent = floor_log2(static_cast<uint64_t>(head.B));
  return lane_form(head, 15 - exponent, static_cast<int32_t>(exponent) + output_bits - 14);
}

}  // namespace hccs
