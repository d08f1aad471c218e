// Bitwise operations and shifts.
#pragma once

#include "arithmetic.hpp"

namespace aie {

namespace detail {

// AIE has no vector logic: the API goes lane by lane through the scalar unit (UG1079, "Bitwise Operations").
template <class T, unsigned N>
void count_bitwise() {
  if constexpr (is_aie) {
    emulation::count(&emulation::operation_counts::lane, 2 * N);
    emulation::count(&emulation::operation_counts::scalar, N);
  } else {
    count_move<T, N>();
  }
}

template <Integer T, unsigned N, class F>
vector<T, N> bitwise(const vector<T, N>& a, const vector<T, N>& b, F f) {
  count_bitwise<T, N>();
  vector<T, N> result(unset);
  for (unsigned i = 0; i < N; ++i) result.lanes[i] = static_cast<T>(f(a.lanes[i], b.lanes[i]));
  return result;
}

// Up into an accumulator and down again, so rounding and saturation modes apply (so does the API).
template <Integer T, unsigned N, class F>
vector<T, N> shift_lanes(const vector<T, N>& v, int up, int down, F f) {
  if (up > max_shift || down > max_shift) emulation::fail("shift out of range (%d, needs 0..%d)", up + down, max_shift);
  constexpr unsigned lane_bits = sizeof(T) == 4 ? 64 : 32;
  emulation::count(&emulation::operation_counts::ups, accumulator_operations<lane_bits, N>());
  emulation::count(&emulation::operation_counts::srs, emulation::operations_for(N * type_bits<T>, emulation::alu_bits));
  vector<T, N> result(unset);
  for (unsigned i = 0; i < N; ++i) result.lanes[i] = f(v.lanes[i]);
  return result;
}

}  // namespace detail

#define AIE_EMULATION_BITWISE(name, op)                             \
  template <detail::Integer T, unsigned N>                          \
  vector<T, N> name(const vector<T, N>& a, const vector<T, N>& b) { \
    return detail::bitwise(a, b, [](T x, T y) { return x op y; });  \
  }
AIE_EMULATION_BITWISE(bit_and, &)
AIE_EMULATION_BITWISE(bit_or, |)
AIE_EMULATION_BITWISE(bit_xor, ^)
#undef AIE_EMULATION_BITWISE
AIE_EMULATION_WITH_SCALAR(bit_and)
AIE_EMULATION_WITH_SCALAR(bit_or)
AIE_EMULATION_WITH_SCALAR(bit_xor)

template <detail::Integer T, unsigned N>
vector<T, N> bit_not(const vector<T, N>& v) {
  return detail::bitwise(v, v, [](T x, T) { return ~x; });
}

// Rounds as the rounding mode says: a plain >> under floor alone.
template <detail::Integer T, unsigned N>
vector<T, N> downshift(const vector<T, N>& v, unsigned shift) {
  const int down = static_cast<int>(shift);
  return detail::shift_lanes(v, 0, down, [down](T lane) { return detail::shift_round_saturate<T>(int64{lane}, down); });
}
// Saturates as the saturation mode says.
template <detail::Integer T, unsigned N>
vector<T, N> upshift(const vector<T, N>& v, unsigned shift) {
  const int up = static_cast<int>(shift);
  return detail::shift_lanes(v, up, 0, [up](T lane) {
    return detail::shift_round_saturate<T>(emulation::int128{lane} * (emulation::int128{1} << up), 0);
  });
}
// Fills with zeros whatever the type's sign. It rounds like downshift, as it goes through the accumulator too.
template <detail::Integer T, unsigned N>
vector<T, N> logical_downshift(const vector<T, N>& v, unsigned shift) {
  const int down = static_cast<int>(shift);
  return detail::shift_lanes(v, 0, down, [down](T lane) {
    using U = std::make_unsigned_t<T>;
    return static_cast<T>(detail::shift_round_saturate<U>(int64{static_cast<U>(lane)}, down));
  });
}

}  // namespace aie
