// The contract of the HCCS row kernels: what every implementation, on every instruction set, promises.
//
// A kernel turns `rows` rows of `n` logits each, all of one head, into probabilities. Rows follow each other without
// gaps in `x` and in `y`.
//
// Ranges     1 <= B <= 32767, 0 <= S <= 127, 1 <= Dmax <= 127, B - S*Dmax >= 0; float kernels also scale > 0 and
//            finite, mask_gap > 0. Kernels check nothing: with parameters outside these ranges results are unspecified,
//            but no memory outside x[0, rows*n) is read and none outside y[0, rows*n) is written.
//            1 <= n <= 2^32; rows may be 0. Row sums are exact for every such n. Profile bounds (n*B <= 32767 and the
//            like) are not needed for exactness: beyond them results saturate as the definition says.
// Alignment  none; the element type's own for float and int16.
// Aliasing   int8 to uint8 and float to float: x and y are the same address, or do not overlap.
//            int8 to int16: x and y do not overlap.
// Tails      any n: a kernel reads and writes exactly its rows, no padding, no byte more.
// Exactness  bit-exact with hccs_onnx/reference.py for every input, NaN, infinities and fully masked rows included, in
//            the default floating-point environment (round to nearest, denormals kept). A NaN in y is a quiet NaN of
//            unspecified sign and payload.
// State      none: no allocation, no global, no exception; safe from any number of threads.
#pragma once

#include <cstddef>
#include <cstdint>

namespace hccs {

// How a row sum Z is inverted. Float kernels do not look at it.
enum class Reciprocal { kNorm, kDiv, kClb };

// Calibrated parameters of one head; B, S and Dmax as in arXiv 2604.02292.
struct Head {
  int32_t B;     // offset: the score of the row maximum
  int32_t S;     // slope: score lost per gap code
  int32_t Dmax;  // clip distance in gap codes
  float scale;   // size of a gap code in units of the logits; float kernels only
};

// What all heads of a node share.
struct Form {
  Reciprocal reciprocal;
  bool masked;     // the code -128 (int8) or a gap above mask_gap (float) has probability 0
  float mask_gap;  // in units of the logits; float kernels only
};

using Int8ToUint8 = void (*)(const int8_t* x, uint8_t* y, size_t rows, size_t n, const Head& head, const Form& form);
using Int8ToInt16 = void (*)(const int8_t* x, int16_t* y, size_t rows, size_t n, const Head& head, const Form& form);
using FloatToFloat = void (*)(const float* x, float* y, size_t rows, size_t n, const Head& head, const Form& form);

// The three kernels of one instruction set.
struct Kernels {
  const char* name;     // as HCCS_KERNEL spells it
  bool (*runs_here)();  // whether this processor and operating system can run them
  Int8ToUint8 int8_to_uint8;
  Int8ToInt16 int8_to_int16;
  FloatToFloat float_to_float;
};

}  // namespace hccs
