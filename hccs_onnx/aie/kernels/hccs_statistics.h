// First half of the fast kernel: maxima and sums of scores, for many rows at once.
//
// With low = max(m - Dmax, -128) a score is floor + S * (max(x, low) - low), where floor = B - S * (m - low) is the
// score of `low` and lies in 0..B. So a row's sum of scores is (columns - w) * floor + S * (sum(max(x, low)) - columns
// * low), where w counts the lanes that are masked or padding: they are the code -128, whose clipped code is `low`.
#pragma once

#include "hccs_tile.h"

namespace hccs {

// Calls body(block, codes, is_half) with a row's codes, 64 at a time; padding becomes the lowest code. `is_half` is a
// std::bool_constant: only the last block may be half a one, whose second half repeats the first.
template <class S, class Body>
void for_each_block(const int8* row, Body body) {
  constexpr bool special = S::half_block || S::padding != 0;
  constexpr unsigned plain = special ? S::blocks - 1 : S::blocks;
  for_each_step<S, plain>(
      [&](unsigned block) { body(block, load64<S::columns>(row + 64 * block), std::false_type{}); });
  if constexpr (special) {
    aie::vector<int8, 64> codes;
    if constexpr (S::half_block) {
      const aie::vector<int8, 32> half = aie::load_v<32>(row + 64 * plain);
      codes = aie::concat(half, half);
    } else {
      codes = load64<S::columns>(row + 64 * plain);
    }
    if constexpr (S::padding != 0) codes = aie::min(codes, aie::load_v<64>(constants::code_limit<S>.lane));
    body(plain, codes, std::bool_constant<S::half_block>{});
  }
}

// Lane by lane maximum of a row's blocks, in 512 bits.
template <class S>
auto fold_row(const int8* row) {
  aie::vector<Computed, 64> maximum;
  if constexpr (S::is_long) maximum = aie::broadcast<Computed, 64>(mask_code);  // so that steps do not differ
  for_each_block<S>(row, [&](unsigned block, const aie::vector<int8, 64>& codes, auto) {
    const aie::vector<Computed, 64> values = computed(codes);
    maximum = !S::is_long && block == 0 ? values : aie::max(maximum, values);
  });
  if constexpr (has_int8) {
    return maximum;
  } else {
    return aie::max(maximum.template extract<32>(0), maximum.template extract<32>(1));
  }
}

// Lanes of a and b alternate in chunks, and what came to lie in the same place is reduced to its maximum.
template <class Lanes>
Lanes merge(const Lanes& a, const Lanes& b, unsigned chunk) {
  const auto [even, odd] = aie::interleave_zip(a, b, chunk);
  return aie::max(even, odd);
}

// Maxima of up to eight rows in 27 operations (AIE: 25): three rounds of merges leave partial maxima of each row, row
// r's in the lanes l with l % 8 == r. Rows that do not exist repeat the last one.
template <class S, unsigned count>
void group_maxima(const int8* __restrict rows, int16* __restrict maximum) {
  const auto fold = [&](unsigned row) { return fold_row<S>(rows + row * S::columns); };
  using Lanes = decltype(fold(0));
  const Lanes r0 = fold(0);
  const Lanes r1 = count > 1 ? fold(1) : r0, r2 = count > 2 ? fold(2) : r1, r3 = count > 3 ? fold(3) : r2;
  const Lanes r4 = count > 4 ? fold(4) : r3, r5 = count > 5 ? fold(5) : r4, r6 = count > 6 ? fold(6) : r5;
  const Lanes r7 = count > 7 ? fold(7) : r6;
  const Lanes lower = merge(merge(r0, r1, 1), merge(r2, r3, 1), 2);
  const Lanes upper = merge(merge(r4, r5, 1), merge(r6, r7, 1), 2);
  Lanes all = merge(lower, upper, 4);
  if constexpr (Lanes::size() == 64) all = aie::max(all, aie::shuffle_down_rotate(all, 32));
  all = aie::max(all, aie::shuffle_down_rotate(all, 16));
  all = aie::max(all, aie::shuffle_down_rotate(all, 8));
  if constexpr (has_int8) {
    aie::store_v(maximum, aie::unpack(all.template extract<32>(0)).template extract<8>(0));
  } else {
    aie::store_v(maximum, all.template extract<8>(0));
  }
}

// `matrices` with `value`, 0..127, for every 127 of constants::columns.
inline void fill_columns(int8* matrices, int8 value) {
  for (unsigned r = 0; r < 8; ++r) {
    aie::store_v(matrices + 64 * r, aie::min(aie::load_v<64>(constants::columns.lane + 64 * r), value));
  }
}

// Adds up the four partial sums of eight rows that lie in a 4x8 product.
template <class Product>
void store_group_sums(const Product& product, int32* sums) {
  const aie::vector<int32, 32> partial = product.template to_vector<int32>(0);
  const aie::vector<int32, 16> two = aie::add(partial.template extract<16>(0), partial.template extract<16>(1));
  aie::store_v(sums, aie::add(two, aie::shuffle_down_rotate(two, 8)).template extract<8>(0));
}

// Clips `count` rows to band.low, keeps them in band.clipped, and adds them up on the matrix unit: times a matrix with
// S in column r and 0 elsewhere, row r's codes add up in column r of a product that all eight rows share.
//
// What a mask hides is flagged by min(code, -127): -128 where hidden, -127 elsewhere. Flags are kept in band.flags. In
// rows that are not long they are added up lane by lane, modulo 256, before the matrix unit adds up lanes: after b
// blocks a lane that was hidden w times holds b - w if b is even, b - w - 128 if it is odd. Else the matrix unit adds
// up the flags of every block.
template <class S, unsigned count>
void group_sums(const int8* __restrict rows, unsigned first, Band<S>& band) {
  aie::mmul<4, 8, 8, int8, int8> sum(aie::zeros<accumulator, 32>()), flag_sum(aie::zeros<accumulator, 32>());
  const aie::vector<int8, 64> second_lowest = aie::broadcast<int8, 64>(mask_code + 1);
  for (unsigned row = 0; row < count; ++row) HCCS_PIPELINED {
    const aie::vector<int8, 64> low = aie::broadcast<int8, 64>(int8(band.low[first + row]));
    const aie::vector<int8, 64> slope_column = aie::load_v<64>(band.slope_columns + 64 * row);
    int8* __restrict clipped = band.clipped + (first + row) * S::stride;
    int8* __restrict flags = band.flags + (S::masked ? (first + row) * S::stride : 0);
    const aie::vector<int8, 64> unit_column = S::masked ? aie::load_v<64>(band.unit_columns + 64 * row) : slope_column;
    aie::vector<int8, 64> lane_flags;
    const auto add_up = [](auto& sums, const aie::vector<int8, 64>& lanes, const auto& column, auto is_half) {
      sums.mac(lanes.template extract<32>(0), column);
      if constexpr (!is_half) sums.mac(lanes.template extract<32>(1), column);
    };
    for_each_block<S>(rows + row * S::columns, [&](unsigned block, const aie::vector<int8, 64>& codes, auto is_half) {
      const aie::vector<int8, 64> values = aie::max(codes, low);
      aie::store_v(clipped + 64 * block, values);
      add_up(sum, values, slope_column, is_half);
      if constexpr (S::masked) {
        const aie::vector<int8, 64> flag = aie::min(codes, second_lowest);
        aie::store_v(flags + 64 * block, flag);
        if constexpr (is_half || !S::adds_flags) {
          add_up(flag_sum, flag, unit_column, is_half);
        } else {
          lane_flags = block == 0 ? flag : aie::add(lane_flags, flag);
        }
      }
    });
    if constexpr (S::masked && S::adds_flags && S::whole_blocks != 0) {
      add_up(flag_sum, lane_flags, unit_column, std::false_type{});
    }
  }
  store_group_sums(sum, band.sum + first);
  if constexpr (S::masked) store_group_sums(flag_sum, band.flag_sum + first);
}

// Calls body(first row, count) for groups of eight rows; the last may have fewer. `count` is a std::integral_constant.
template <unsigned rows, class Body>
void for_each_group(Body body) {
  constexpr unsigned whole = rows / group_rows * group_rows;
  for (unsigned first = 0; first < whole; first += group_rows) {
    body(first, std::integral_constant<unsigned, group_rows>{});
  }
  if constexpr (rows != whole) body(whole, std::integral_constant<unsigned, rows - whole>{});
}

// band.low, band.start and band.floor from band.maximum.
template <class S>
void clip_levels(const Head& head, Band<S>& band) {
  using Lanes = aie::vector<int16, band_lanes>;
  const Lanes start = aie::sub(aie::load_v<band_lanes>(band.maximum), int16(head.Dmax));
  const Lanes low = aie::max(start, int16(mask_code));
  const aie::accum<accumulator, band_lanes> floor(aie::broadcast<int16, band_lanes>(int16(head.floor())));
  const Lanes raised = aie::sub(low, start);
  aie::store_v(band.low, low);
  aie::store_v(band.start, start);
  aie::store_v(
      band.floor,
      Lanes(aie::mac(floor, raised, aie::broadcast<int16, band_lanes>(int16(head.S))).template to_vector<int16>(0)));
}

// band.sum becomes Z, at least `least`: the smallest sum of a row in which something is visible.
template <class S>
void finish_sums(const Head& head, int32 least, Band<S>& band) {
  using Lanes = aie::vector<int16, band_lanes>;
  const Lanes low = aie::load_v<band_lanes>(band.low), floor = aie::load_v<band_lanes>(band.floor);
  const Lanes slope = aie::broadcast<int16, band_lanes>(int16(head.S));
  const Lanes columns = aie::broadcast<int16, band_lanes>(int16(S::columns));
  const Lanes offset = aie::mul<accumulator>(low, slope).template to_vector<int16>(0);
  aie::accum<accumulator, band_lanes> sum(aie::load_v<band_lanes>(band.sum));
  sum = aie::msc(sum, columns, offset);
  if constexpr (S::masked) {
    const aie::accum<accumulator, band_lanes> count(
        aie::add(aie::load_v<band_lanes>(band.flag_sum), S::flags_to_visible));
    const Lanes visible = count.template to_vector<int16>(0);
    sum = aie::mac(sum, visible, floor);
  } else {
    sum = aie::mac(sum, aie::broadcast<int16, band_lanes>(int16(S::n)), floor);
  }
  aie::store_v(band.sum, aie::max(sum.template to_vector<int32>(0), least));
}

}  // namespace hccs
