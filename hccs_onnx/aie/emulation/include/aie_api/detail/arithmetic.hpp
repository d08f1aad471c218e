// Lane by lane: add, sub, neg, abs, maximum and minimum. The adders wrap, saturation does not apply to them.
// A scalar operand must have the vector's element type, as the API demands: aie::min(v, (uint8)7), not aie::min(v, 7).
#pragma once

#include <utility>

#include "init.hpp"
#include "mask.hpp"

namespace aie {

namespace detail {

template <class T, unsigned N, class F>
vector<T, N> map(const vector<T, N>& a, F f) {
  count_alu<T, N>();
  vector<T, N> result(unset);
  for (unsigned i = 0; i < N; ++i) result.lanes[i] = f(a.lanes[i]);
  return result;
}
template <class T, unsigned N, class F>
vector<T, N> zip(const vector<T, N>& a, const vector<T, N>& b, F f) {
  count_alu<T, N>();
  vector<T, N> result(unset);
  for (unsigned i = 0; i < N; ++i) result.lanes[i] = f(a.lanes[i], b.lanes[i]);
  return result;
}

template <class T>
constexpr T add_lane(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(int64{a} + int64{b});
  } else {
    return a + b;
  }
}
template <class T>
constexpr T sub_lane(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(int64{a} - int64{b});
  } else {
    return a - b;
  }
}
template <class T>
constexpr T max_lane(T a, T b) {
  return a < b ? b : a;
}
template <class T>
constexpr T min_lane(T a, T b) {
  return b < a ? b : a;
}

}  // namespace detail

template <class T, unsigned N>
vector<T, N> add(const vector<T, N>& a, const vector<T, N>& b) {
  return detail::zip(a, b, detail::add_lane<T>);
}
template <class T, unsigned N>
vector<T, N> sub(const vector<T, N>& a, const vector<T, N>& b) {
  return detail::zip(a, b, detail::sub_lane<T>);
}
template <class T, unsigned N>
vector<T, N> max(const vector<T, N>& a, const vector<T, N>& b) {
  return detail::zip(a, b, detail::max_lane<T>);
}
template <class T, unsigned N>
vector<T, N> min(const vector<T, N>& a, const vector<T, N>& b) {
  return detail::zip(a, b, detail::min_lane<T>);
}

// -128 of int8 has no counterpart: both give -128 again.
template <class T, unsigned N>
vector<T, N> neg(const vector<T, N>& v) {
  return detail::map(v, [](T x) { return detail::sub_lane<T>(T{0}, x); });
}
template <class T, unsigned N>
vector<T, N> abs(const vector<T, N>& v) {
  return detail::map(
      v, [](T x) { return detail::max_lane<T>(x, std::is_signed_v<T> ? detail::sub_lane<T>(T{0}, x) : x); });
}

#define AIE_EMULATION_WITH_SCALAR(name)                  \
  template <class T, unsigned N, detail::ScalarOf<T> E>  \
  vector<T, N> name(const vector<T, N>& a, const E& b) { \
    return name(a, broadcast<T, N>(b));                  \
  }                                                      \
  template <class T, unsigned N, detail::ScalarOf<T> E>  \
  vector<T, N> name(const E& a, const vector<T, N>& b) { \
    return name(broadcast<T, N>(a), b);                  \
  }
AIE_EMULATION_WITH_SCALAR(add)
AIE_EMULATION_WITH_SCALAR(sub)
AIE_EMULATION_WITH_SCALAR(max)
AIE_EMULATION_WITH_SCALAR(min)

// Accumulators: AIE can add a vector, but has no adder for two accumulators.
namespace detail {
template <class Tag, unsigned N, class F>
accum<Tag, N> zip_accumulators(const accum<Tag, N>& a, const accum<Tag, N>& b, F f) {
  constexpr unsigned bits = accumulator_bits<Tag>;
  emulation::count(&emulation::operation_counts::multiply, accumulator_operations<bits, N>());
  accum<Tag, N> result(unset);
  for (unsigned i = 0; i < N; ++i) {
    result.lanes[i] = wrap<bits>(f(wide_type<bits>{a.lanes[i]}, wide_type<bits>{b.lanes[i]}));
  }
  return result;
}
}  // namespace detail

template <class Tag, unsigned N>
  requires(!detail::is_aie && N > 0)
accum<Tag, N> add(const accum<Tag, N>& a, const accum<Tag, N>& b) {
  return detail::zip_accumulators(a, b, [](auto x, auto y) { return x + y; });
}
template <class Tag, unsigned N>
  requires(!detail::is_aie && N > 0)
accum<Tag, N> sub(const accum<Tag, N>& a, const accum<Tag, N>& b) {
  return detail::zip_accumulators(a, b, [](auto x, auto y) { return x - y; });
}
template <class Tag, unsigned N, class T>
accum<Tag, N> add(const accum<Tag, N>& a, const vector<T, N>& b) {
  return detail::zip_accumulators(a, accum<Tag, N>(b), [](auto x, auto y) { return x + y; });
}
template <class Tag, unsigned N, class T>
accum<Tag, N> sub(const accum<Tag, N>& a, const vector<T, N>& b) {
  return detail::zip_accumulators(a, accum<Tag, N>(b), [](auto x, auto y) { return x - y; });
}

}  // namespace aie
