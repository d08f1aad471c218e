// Comparisons give a mask, select takes one.
#pragma once

#include "arithmetic.hpp"

namespace aie {

namespace detail {
template <class T, unsigned N, class F>
mask<N> compare(const vector<T, N>& a, const vector<T, N>& b, F f) {
  count_alu<T, N>();
  mask<N> result;
  for (unsigned i = 0; i < N; ++i) result.bits_[i] = f(a.lanes[i], b.lanes[i]);
  return result;
}
}  // namespace detail

#define AIE_EMULATION_COMPARISON(name, expression)                     \
  template <class T, unsigned N>                                       \
  mask<N> name(const vector<T, N>& a, const vector<T, N>& b) {         \
    return detail::compare(a, b, [](T x, T y) { return expression; }); \
  }                                                                    \
  template <class T, unsigned N, detail::ScalarOf<T> E>                \
  mask<N> name(const vector<T, N>& a, const E& b) {                    \
    return name(a, broadcast<T, N>(b));                                \
  }                                                                    \
  template <class T, unsigned N, detail::ScalarOf<T> E>                \
  mask<N> name(const E& a, const vector<T, N>& b) {                    \
    return name(broadcast<T, N>(a), b);                                \
  }
AIE_EMULATION_COMPARISON(lt, x < y)
AIE_EMULATION_COMPARISON(le, x <= y)
AIE_EMULATION_COMPARISON(gt, x > y)
AIE_EMULATION_COMPARISON(ge, x >= y)
AIE_EMULATION_COMPARISON(eq, x == y)
AIE_EMULATION_COMPARISON(neq, x != y)
#undef AIE_EMULATION_COMPARISON

// Lane by lane the first operand where the mask is 0, the second where it is 1.
template <class T, unsigned N>
vector<T, N> select(const vector<T, N>& zero, const vector<T, N>& one, const mask<N>& m) {
  detail::count_alu<T, N>();
  vector<T, N> result(detail::unset);
  for (unsigned i = 0; i < N; ++i) result.lanes[i] = m.bits_[i] ? one.lanes[i] : zero.lanes[i];
  return result;
}
template <class T, unsigned N, detail::ScalarOf<T> E>
vector<T, N> select(const E& zero, const vector<T, N>& one, const mask<N>& m) {
  return select(broadcast<T, N>(zero), one, m);
}
template <class T, unsigned N, detail::ScalarOf<T> E>
vector<T, N> select(const vector<T, N>& zero, const E& one, const mask<N>& m) {
  return select(zero, broadcast<T, N>(one), m);
}

// Maximum (minimum), and where it came from the second operand.
template <class T, unsigned N>
std::pair<vector<T, N>, mask<N>> max_cmp(const vector<T, N>& a, const vector<T, N>& b) {
  return {max(a, b), lt(a, b)};
}
template <class T, unsigned N>
std::pair<vector<T, N>, mask<N>> min_cmp(const vector<T, N>& a, const vector<T, N>& b) {
  return {min(a, b), gt(a, b)};
}

}  // namespace aie
