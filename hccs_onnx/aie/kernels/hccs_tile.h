// Sizes, constants and working memory of the fast kernel for one row length.
#pragma once

#include "hccs_contract.h"

namespace hccs {

// Rows whose sums are inverted together.
constexpr unsigned band_lanes = 32;
// Rows whose maxima or sums are found together.
constexpr unsigned group_rows = 8;

// Sizes that follow from N codes a row and `Rows` rows a head.
template <unsigned N, unsigned Rows, bool Masked>
struct Shape {
  static constexpr unsigned n = N, rows = Rows, columns = padded_columns(N);
  static constexpr bool masked = Masked;
  static constexpr unsigned padding = columns - N;                // lanes of a row that do not count
  static constexpr unsigned blocks = round_up(columns, 64) / 64;  // of 64 codes; the last one may be half a block
  static constexpr bool half_block = columns % 64 != 0;
  static constexpr unsigned stride = 64 * blocks;  // of a row in scratch memory

  // A tile has 16 KiB of program memory. Blocks of a row are unrolled up to this length; longer rows are loops.
  static constexpr bool is_long = blocks > 8;

  // What is missing from the sum of a row's flags to the number of visible lanes, see group_sums: 128 for each lane of
  // half a block, and of every sum of an odd number of whole blocks.
  static constexpr bool adds_flags = has_int8 && !is_long;
  static constexpr unsigned whole_blocks = columns / 64, odd_sums = adds_flags ? whole_blocks % 2 : whole_blocks;
  static constexpr int32 flags_to_visible = 128 * (64 * int32(odd_sums) + (half_block ? 32 : 0));

  // Fewer rows a band where they are long: their clipped codes have to fit in scratch memory.
  static constexpr unsigned band_rows() {
    unsigned count = band_lanes;
    while (count > 1 && count * stride > scratch_limit) count /= 2;
    return count < Rows ? count : Rows;
  }
};

// Bytes of stack that hccs::softmax needs for its arrays: to be given to the kernel as its stack size, plus 1 KiB for
// what the compiler spills. Python: hccs_onnx.aie.kernels.working_bytes.
template <unsigned N, unsigned Rows, bool Masked>
constexpr unsigned working_bytes() {
  using S = Shape<N, Rows, Masked>;
  constexpr unsigned fixed = 2 * 8 * 64 + 64 + 5 * band_lanes * 2 + 4 * band_lanes * 4;
  return S::band_rows() * S::stride * (Masked ? 2 : 1) + fixed;
}

// Calls body(0) to body(steps - 1), the steps of a row.
template <class S, unsigned steps, class Body>
void for_each_step(Body body) {
  if constexpr (S::is_long) {
    for (unsigned step = 0; step < steps; ++step) HCCS_PIPELINED {
      body(step);
    }
  } else {
    for (unsigned step = 0; step < steps; ++step) HCCS_UNROLLED {
      body(step);
    }
  }
}

namespace constants {

template <class T, unsigned N>
struct Lanes {
  alignas(64) T lane[N];
};

// Eight 8x8 matrices, the r-th with 127 in column r: a 4x8 block times the r-th adds up into column r.
constexpr auto make_columns() {
  Lanes<int8, 8 * 64> matrices{};
  for (unsigned r = 0; r < 8; ++r) {
    for (unsigned k = 0; k < 8; ++k) matrices.lane[64 * r + 8 * k + r] = 127;
  }
  return matrices;
}
inline constexpr auto columns = make_columns();

// Upper limits of a row's last 64 codes: none, and the lowest code where lanes are padding. Half a block is repeated.
template <class S>
constexpr auto make_code_limit() {
  Lanes<int8, 64> limit{};
  const unsigned first = 64 * (S::blocks - 1);
  for (unsigned i = 0; i < 64; ++i) limit.lane[i] = first + (S::half_block ? i % 32 : i) < S::n ? 127 : mask_code;
  return limit;
}
template <class S>
inline constexpr auto code_limit = make_code_limit<S>();

// Upper limits of a row's last 32 outputs: none, and 0 where lanes are padding.
template <class S, class Out>
constexpr auto make_output_limit() {
  Lanes<Out, 32> limit{};
  for (unsigned i = 0; i < 32; ++i) limit.lane[i] = i < 32 - S::padding ? std::numeric_limits<Out>::max() : Out(0);
  return limit;
}
template <class S, class Out>
inline constexpr auto output_limit = make_output_limit<S, Out>();

}  // namespace constants

// What is known of a band of rows, a lane a row, and the band's clipped codes.
template <class S>
struct Band {
  alignas(64) int8 clipped[S::band_rows() * S::stride];                // max(code, row's lowest code that counts)
  alignas(64) int8 flags[S::masked ? S::band_rows() * S::stride : 1];  // -127; -128 where masked or padding
  alignas(64) int8 slope_columns[8 * 64];                              // constants::columns with S, and with 1
  alignas(64) int8 unit_columns[8 * 64];
  alignas(64) int16 maximum[band_lanes] = {};
  alignas(64) int16 start[band_lanes];     // maximum - Dmax, where the score is B - S * Dmax
  alignas(64) int16 low[band_lanes];       // the same, or the lowest code if that is larger
  alignas(64) int16 floor[band_lanes];     // score of `low`
  alignas(64) int32 sum[band_lanes] = {};  // S * sum of clipped codes, then the sum of scores Z
  alignas(64) int32 flag_sum[band_lanes] = {};
  alignas(64) int32 rho[band_lanes];
};

}  // namespace hccs
