// HCCS on one AI Engine tile: hccs::softmax, and hccs::softmax_reference with the same contract.
//
// Written in C++20 for the AIE API of Vitis and of Peano (IRON, which has no adf.h), and compiled, unchanged, for the
// host emulation in ../emulation.
#pragma once

#if __has_include(<adf.h>)
#include <adf.h>
#endif

#include "hccs_normalise.h"
#include "hccs_reference.h"
#include "hccs_statistics.h"

namespace hccs {

// HEADS blocks of ROWS rows of N int8 codes; y has the same layout.
//
//   x, y    rows are padded to round_up(N, 32) elements. Padding of x is never looked at, padding of y becomes 0.
//   Aligned
//           to 64 bytes, and not the same memory.
//   params  B, S, Dmax and a reserved 0 for each head: 1 <= B <= 32767, 0 <= S <= 127, 1 <= Dmax <= 127,
//           B - S * Dmax >= 0, and what the profile 'extended' asks for: int16 with div or clb N * B <= 32767; uint8
//           with div or clb B + (N - 1) * (B - S * Dmax) >= 256, or B >= 256 if masked. Not checked here.
//   Out     uint8 in units of 2^-8, or int16 in units of 2^-15.
//   Masked  the code -128 has probability 0, and a row of nothing else is all 0.
//
// Sets the rounding and saturation modes. Needs working_bytes<N, ROWS, Masked>() of stack and no static memory.
// Bit-exact with hccs_onnx.reference.
template <class Out, Reciprocal R, bool Masked, unsigned N, unsigned ROWS, unsigned HEADS>
void softmax(const int8* __restrict x, Out* __restrict y, const int32* params) {
  static_assert(std::is_same_v<Out, uint8> || std::is_same_v<Out, int16>, "output is uint8 or int16");
  static_assert(N >= 1 && N <= 32736 && ROWS >= 1 && HEADS >= 1, "rows are of 1 to 32736 codes");
  using S = Shape<N, ROWS, Masked>;
  constexpr unsigned band_rows = S::band_rows(), whole = ROWS / band_rows * band_rows;
  // norm rounds half up; all else is floor
  constexpr auto rounding = R == Reciprocal::norm ? aie::rounding_mode::positive_inf : aie::rounding_mode::floor;
  aie::set_saturation(aie::saturation_mode::saturate);

  Band<S> band;
  static_assert(sizeof(Band<S>) + 6 * band_lanes <= working_bytes<N, ROWS, Masked>(), "and norm's two arrays");
  fill_columns(band.unit_columns, 1);
  for (unsigned index = 0; index < HEADS; ++index) {
    const Head head(params + 4 * index);
    const SumRange range = SumRange::of<S>(head);
    fill_columns(band.slope_columns, int8(head.S));

    const auto do_band = [&](auto rows) {
      constexpr unsigned count = decltype(rows)::value;
      aie::set_rounding(aie::rounding_mode::floor);
      for_each_group<count>([&](unsigned first, auto group) {
        group_maxima<S, decltype(group)::value>(x + first * S::columns, band.maximum + first);
      });
      clip_levels(head, band);
      for_each_group<count>([&](unsigned first, auto group) {
        group_sums<S, decltype(group)::value>(x + first * S::columns, first, band);
      });
      finish_sums(head, range.least, band);
      reciprocals<Out, R>(range, count, band);
      aie::set_rounding(rounding);
      normalise<Out, R>(head, count, band, y);
      x += count * S::columns;
      y += count * S::columns;
    };
    for (unsigned first = 0; first < whole; first += band_rows) do_band(std::integral_constant<unsigned, band_rows>{});
    if constexpr (ROWS != whole) do_band(std::integral_constant<unsigned, ROWS - whole>{});
  }
}

#if __has_include(<adf.h>)
// The same as kernels of an ADF graph, on its buffers.
template <class Out, Reciprocal R, bool Masked, unsigned N, unsigned ROWS, unsigned HEADS>
void softmax(adf::input_buffer<int8>& x, adf::output_buffer<Out>& y, const int32 (&params)[4 * HEADS]) {
  softmax<Out, R, Masked, N, ROWS, HEADS>(x.data(), y.data(), params);
}
template <class Out, Reciprocal R, bool Masked, unsigned N, unsigned ROWS, unsigned HEADS>
void softmax_reference(adf::input_buffer<int8>& x, adf::output_buffer<Out>& y, const int32 (&params)[4 * HEADS]) {
  softmax_reference<Out, R, Masked, N, ROWS, HEADS>(x.data(), y.data(), params);
}
#endif

}  // namespace hccs
