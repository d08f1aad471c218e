// One value from all lanes of a vector.
#pragma once

#include "arithmetic.hpp"

namespace aie {

namespace detail {
// log2(N) times: move down by half, combine; then read lane 0.
template <class T, unsigned N>
void count_reduction() {
  constexpr unsigned whole = emulation::operations_for(N * type_bits<T>, emulation::alu_bits);
  constexpr unsigned in_register = static_cast<unsigned>(std::bit_width(N / whole)) - 1;
  emulation::count(&emulation::operation_counts::move, whole - 1 + 2 * in_register);
  emulation::count(&emulation::operation_counts::lane);
}
}  // namespace detail

template <class T, unsigned N>
T reduce_max(const vector<T, N>& v) {
  detail::count_reduction<T, N>();
  T result = v.lanes[0];
  for (T lane : v.lanes) result = detail::max_lane(result, lane);
  return result;
}
template <class T, unsigned N>
T reduce_min(const vector<T, N>& v) {
  detail::count_reduction<T, N>();
  T result = v.lanes[0];
  for (T lane : v.lanes) result = detail::min_lane(result, lane);
  return result;
}
// The sum has the lanes' type. Where it does not fit, 8 and 16 bits wrap and saturate in turn on the way (AIE-ML's
// implementation), so no result is right; here it is undefined. 32 bits wrap.
template <class T, unsigned N>
T reduce_add(const vector<T, N>& v) {
  detail::count_reduction<T, N>();
  if constexpr (!std::is_integral_v<T>) {
    T sum = 0;
    for (T lane : v.lanes) sum += lane;
    return sum;
  } else {
    int64 sum = 0;
    for (T lane : v.lanes) sum += lane;
    const T result = static_cast<T>(sum);
    return sizeof(T) == 4 || result == sum ? result : emulation::poisoned<T>();
  }
}

}  // namespace aie
