// Second half of the fast kernel: reciprocals of the row sums, then the outputs.
#pragma once

#include "hccs_divide.h"
#include "hccs_tile.h"

namespace hccs {

inline int log2_floor(int32 value) {
  return 31 - clb(value);
}  // of value >= 1

// What decides how sums are inverted, the same for all rows of a head.
struct SumRange {
  int32 least;  // smallest sum of a row in which something is visible
  bool narrow;  // no sum exceeds an int16

  template <class S>
  static SumRange of(const Head& head) {
    return {S::masked ? head.B : head.B + int32(S::n - 1) * head.floor(), int32(S::n) * head.B <= 32767};
  }
};

// div: the numerator over Z. Its leading bits below the least sum are the first remainder, the others are the steps.
// A mask may leave but one code, so there the least sum of this band is looked for.
template <class Out, class S>
void reciprocals_div(const SumRange& range, Band<S>& band) {
  constexpr bool is_uint8 = sizeof(Out) == 1;
  constexpr int32 numerator = is_uint8 ? 255 << 15 : 32767;  // below the 8 leading bits all are 0, or 1
  constexpr int numerator_bits = is_uint8 ? 23 : 15;
  const aie::vector<int32, band_lanes> sums = aie::load_v<band_lanes>(band.sum);
  const int32 least = S::masked ? aie::reduce_min(sums) : range.least;
  const int needed = numerator_bits - log2_floor(least);
  const int steps = needed < 0 ? 0 : needed;
  const aie::vector<int32, band_lanes> first = aie::broadcast<int32, band_lanes>(numerator >> steps);
  aie::store_v(band.rho, divide<!is_uint8>(first, sums, unsigned(steps), range.narrow));
}

// norm: 2^(15 + k) / Z = 2^29 / (upper + lower / 2^15), where `upper`, 2^14..2^15 - 1, holds Z's 15 leading bits.
// 2^29 / upper is at most 2 too large; it is lowered while the remainder, of which `lower` takes its share, is
// negative. Lanes behind the `count` rows hold no sum that could be shifted.
template <class S>
void reciprocals_norm(const SumRange& range, unsigned count, Band<S>& band) {
  using Lanes = aie::vector<int16, band_lanes>;
  alignas(64) int32 upper[band_lanes] = {};
  alignas(64) int16 lower[band_lanes] = {};
  for (unsigned row = 0; row < count; ++row) HCCS_PIPELINED {
    const int exponent = log2_floor(band.sum[row]);
    const int32 leading = band.sum[row] << (29 - exponent);
    upper[row] = leading >> 15;
    lower[row] = int16(leading & 32767);
  }
  const aie::vector<int32, band_lanes> divisor = aie::load_v<band_lanes>(upper);
  const aie::vector<int32, band_lanes> quotient =
      divide<false>(aie::broadcast<int32, band_lanes>(1 << 14), divisor, 15, true);
  if (range.narrow) {  // Z < 2^15: lower is 0
    aie::store_v(band.rho, quotient);
    return;
  }
  const Lanes upper16 = aie::accum<accumulator, band_lanes>(divisor).template to_vector<int16>(0);
  const Lanes lower16 = aie::load_v<band_lanes>(lower);
  const Lanes zero = aie::zeros<int16, band_lanes>();
  const aie::accum<accumulator, band_lanes> numerator(aie::broadcast<int32, band_lanes>(1 << 29));
  const auto share = [&](const Lanes& rho) -> Lanes {  // -ceil(rho * lower / 2^15)
    return aie::negmul<accumulator>(rho, lower16).template to_vector<int16>(15);
  };
  Lanes rho = aie::accum<accumulator, band_lanes>(quotient).template to_vector<int16>(0);
  const Lanes remainder = aie::msc(numerator, rho, upper16).template to_vector<int16>(0);
  Lanes taken = share(rho);
  Lanes rest = aie::add(remainder, taken);
  for (unsigned time = 0; time < 2; ++time) HCCS_UNROLLED {
    const auto fits = aie::ge(rest, zero);
    rho = aie::select(aie::sub(rho, int16(1)), rho, fits);
    const Lanes taken_now = share(rho);
    rest = aie::add(aie::select(aie::add(rest, upper16), rest, fits), aie::sub(taken_now, taken));
    taken = taken_now;
  }
  aie::store_v(band.rho, aie::accum<accumulator, band_lanes>(rho).template to_vector<int32>(0));
}

// band.rho from band.sum, 32 rows at once; clb needs no division.
template <class Out, Reciprocal R, class S>
void reciprocals(const SumRange& range, unsigned count, Band<S>& band) {
  if constexpr (R == Reciprocal::div) reciprocals_div<Out>(range, band);
  if constexpr (R == Reciprocal::norm) reciprocals_norm(range, count, band);
}

// Whether y = score * rho >> shift takes one multiplication a code: rho * S fits an int16. That is so for uint8 clb,
// where rho can be kept below 256 as the other bits are 0, and for int16 div, where rho * S <= rho * B <= rho * Z and
// that is no more than 32767. With a mask uint8 clb takes two, as 255 * score cannot be brought below 0 in one step.
template <class Out, Reciprocal R, bool Masked>
constexpr bool one_multiplication = sizeof(Out) == 1 ? R == Reciprocal::clb && !Masked : R == Reciprocal::div;

// y = score * rho >> shift.
struct Scale {
  int16 rho;
  int shift;
};
template <class Out, Reciprocal R, class S>
Scale scale_of(const Band<S>& band, unsigned row) {
  constexpr bool is_uint8 = sizeof(Out) == 1;
  if constexpr (R == Reciprocal::div) return {int16(band.rho[row]), is_uint8 ? 15 : 0};
  const int exponent = log2_floor(band.sum[row]);
  if constexpr (one_multiplication<Out, R, S::masked>) {  // rho = 255 * 2^(15 - k), where that is an integer
    return exponent <= 15 ? Scale{255, exponent} : Scale{int16(255 >> (exponent - 15)), 15};
  } else if constexpr (R == Reciprocal::clb) {
    return {int16((is_uint8 ? 255 << 15 : 32767) >> exponent), is_uint8 ? 15 : 0};
  } else {
    const int shift = is_uint8 ? exponent + 7 : exponent;  // beyond 31 nothing is left: score * rho + half < 2^31
    return {int16(band.rho[row]), shift < 31 ? shift : 31};
  }
}

// Outputs of `count` rows, 32 at a time: score = (B - S * Dmax) + S * (clipped - start), 0 where not visible, then
// y = score * rho >> shift. Accumulators start with what is the same in the whole row. From hidden lanes the largest
// score is subtracted, and what is below 0 becomes 0.
template <class Out, Reciprocal R, class S>
void normalise(const Head& head, unsigned count, const Band<S>& band, Out* __restrict out) {
  using Lanes = aie::vector<int16, 32>;
  using Sums = aie::accum<accumulator, 32>;
  constexpr bool once = one_multiplication<Out, R, S::masked>;
  const Lanes slope = aie::broadcast<int16, 32>(int16(head.S)), floor = aie::broadcast<int16, 32>(int16(head.floor()));
  // With a mask sums begin at 127 times the largest, which the flags take away again; those of hidden lanes one more.
  const Lanes largest = aie::broadcast<int16, 32>(32767);
  const Sums zero(aie::broadcast<int32, 32>(S::masked ? 127 * 32767 : 0));
  const Sums floor_sum = aie::add(zero, floor);
  // Padding has no score with a mask; without one it has, in the last vector.
  constexpr unsigned vectors = S::columns / 32, plain = !S::masked && S::padding != 0 ? vectors - 1 : vectors;
  for (unsigned row = 0; row < count; ++row) HCCS_PIPELINED {
    const int8* __restrict clipped = band.clipped + row * S::stride;
    const int8* __restrict flags = band.flags + (S::masked ? row * S::stride : 0);
    const Scale scale = scale_of<Out, R>(band, row);
    const Lanes rho = aie::broadcast<int16, 32>(scale.rho), start = aie::broadcast<int16, 32>(band.start[row]);
    const Lanes factor = once ? aie::broadcast<int16, 32>(int16(scale.rho * head.S)) : slope;
    const Sums constant = aie::msc(once ? aie::mac(zero, floor, rho) : floor_sum, start, factor);
    const auto put = [&](unsigned vector, auto is_limited) {
      const Lanes code = aie::unpack(aie::load_v<32>(clipped + 32 * vector));
      Sums sum = aie::mac(constant, code, factor);
      if constexpr (S::masked) sum = aie::mac(sum, aie::unpack(aie::load_v<32>(flags + 32 * vector)), largest);
      aie::vector<Out, 32> y;
      if constexpr (once && S::masked) {
        y = not_negative(sum);
      } else if constexpr (once) {
        y = sum.template to_vector<Out>(scale.shift);
      } else {
        Lanes score;
        if constexpr (S::masked) {
          score = not_negative(sum);
        } else {
          score = sum.template to_vector<int16>(0);
        }
        y = aie::mul<accumulator>(score, rho).template to_vector<Out>(scale.shift);
      }
      if constexpr (is_limited) y = aie::min(y, aie::load_v<32>(constants::output_limit<S, Out>.lane));
      aie::store_v(out + row * S::columns + 32 * vector, y);
    };
    for_each_step<S, plain>([&](unsigned vector) { put(vector, std::false_type{}); });
    if constexpr (plain != vectors) put(plain, std::true_type{});
  }
}

}  // namespace hccs
