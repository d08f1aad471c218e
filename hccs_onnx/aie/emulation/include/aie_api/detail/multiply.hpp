// Products into accumulators: mul, negmul, mac, msc, and squares.
#pragma once

#include "arithmetic.hpp"

namespace aie {

namespace detail {

// Products of 8 x 8 bits the multipliers form in one cycle; each doubling of a factor's width halves them (AM009, AM020
// and the open back end's instruction names: 128, 256, 512).
inline constexpr unsigned macs_8x8 = is_aie ? 128 : is_ml_v2 ? 512 : 256;
template <class A, class B>
inline constexpr unsigned macs = macs_8x8 / (sizeof(A) * sizeof(B));

// Lanes of an elementwise product a cycle: bounded by the multipliers, by the accumulator register that one instruction
// writes and, on XDNA 2 and AIE-MLv2, by the instructions there are (mul_elem_64 for 8 x 8 bits, else mul_elem_32).
template <AccumTag Tag, class A, class B>
inline constexpr unsigned elementwise_lanes = [] {
  constexpr unsigned register_bits = is_aie ? 768 : is_ml_v2 ? 2048 : 1024;
  constexpr unsigned by_register = std::bit_floor(register_bits / accumulator_bits<Tag>);
  constexpr unsigned by_instruction = sizeof(A) + sizeof(B) == 2 ? 64 : 32;
  constexpr unsigned fewer = by_register < by_instruction ? by_register : by_instruction;
  return fewer < macs<A, B> ? fewer : macs<A, B>;
}();

template <AccumTag Tag, class A, class B, unsigned N>
void count_multiply() {
  constexpr unsigned operations = emulation::operations_for(N, elementwise_lanes<Tag, A, B>);
  emulation::count(&emulation::operation_counts::multiply, operations);
  // Elementwise int8 products use the two-deep multiplier: the first operand is interleaved with zeros.
  if constexpr (!is_aie && sizeof(A) == 1 && sizeof(B) == 1) {
    emulation::count(&emulation::operation_counts::pad, operations);
  }
}

template <AccumTag Tag, Integer A, Integer B, unsigned N, class F>
accum<Tag, N> multiply(const vector<A, N>& a, const vector<B, N>& b, F combine) {
  static_assert(has_product<A, B>, "8 by 32 bits cannot be multiplied");
  constexpr unsigned bits = accumulator_bits<Tag>;
  using wide = std::conditional_t<sizeof(A) + sizeof(B) == 8, emulation::int128, wide_type<bits>>;
  count_multiply<Tag, A, B, N>();
  accum<Tag, N> result(unset);
  for (unsigned i = 0; i < N; ++i) result.lanes[i] = wrap<bits>(wide{combine(i, wide{a.lanes[i]} * wide{b.lanes[i]})});
  return result;
}

}  // namespace detail

template <class Tag = accauto, detail::Integer A, detail::Integer B, unsigned N>
auto mul(const vector<A, N>& a, const vector<B, N>& b) {
  return detail::multiply<detail::product_tag<Tag, A, B>>(a, b, [](unsigned, auto product) { return product; });
}
template <class Tag = accauto, detail::Integer A, detail::Integer B, unsigned N>
auto negmul(const vector<A, N>& a, const vector<B, N>& b) {
  return detail::multiply<detail::product_tag<Tag, A, B>>(a, b, [](unsigned, auto product) { return -product; });
}
template <class Tag, detail::Integer A, detail::Integer B, unsigned N>
accum<Tag, N> mac(const accum<Tag, N>& c, const vector<A, N>& a, const vector<B, N>& b) {
  return detail::multiply<Tag>(a, b, [&c](unsigned i, auto product) { return c.lanes[i] + product; });
}
template <class Tag, detail::Integer A, detail::Integer B, unsigned N>
accum<Tag, N> msc(const accum<Tag, N>& c, const vector<A, N>& a, const vector<B, N>& b) {
  return detail::multiply<Tag>(a, b, [&c](unsigned i, auto product) { return c.lanes[i] - product; });
}

// A scalar factor may have another type than the lanes; a plain 5 is an int32.
#define AIE_EMULATION_PRODUCT_WITH_SCALAR(name)                                   \
  template <class Tag = accauto, detail::Integer A, unsigned N, detail::Scalar E> \
  auto name(const vector<A, N>& a, const E& b) {                                  \
    return name<Tag>(a, broadcast<detail::scalar_type_t<E>, N>(b));               \
  }                                                                               \
  template <class Tag = accauto, detail::Integer A, unsigned N, detail::Scalar E> \
  auto name(const E& a, const vector<A, N>& b) {                                  \
    return name<Tag>(broadcast<detail::scalar_type_t<E>, N>(a), b);               \
  }
#define AIE_EMULATION_SUM_WITH_SCALAR(name)                                       \
  template <class Tag, detail::Integer A, unsigned N, detail::Scalar E>           \
  accum<Tag, N> name(const accum<Tag, N>& c, const vector<A, N>& a, const E& b) { \
    return name(c, a, broadcast<detail::scalar_type_t<E>, N>(b));                 \
  }                                                                               \
  template <class Tag, detail::Integer A, unsigned N, detail::Scalar E>           \
  accum<Tag, N> name(const accum<Tag, N>& c, const E& a, const vector<A, N>& b) { \
    return name(c, broadcast<detail::scalar_type_t<E>, N>(a), b);                 \
  }
AIE_EMULATION_PRODUCT_WITH_SCALAR(mul)
AIE_EMULATION_PRODUCT_WITH_SCALAR(negmul)
AIE_EMULATION_SUM_WITH_SCALAR(mac)
AIE_EMULATION_SUM_WITH_SCALAR(msc)
#undef AIE_EMULATION_PRODUCT_WITH_SCALAR
#undef AIE_EMULATION_SUM_WITH_SCALAR

template <class Tag = accauto, detail::Integer T, unsigned N>
auto mul_square(const vector<T, N>& v) {
  return mul<Tag>(v, v);
}
template <class Tag, detail::Integer T, unsigned N>
accum<Tag, N> mac_square(const accum<Tag, N>& c, const vector<T, N>& v) {
  return mac(c, v, v);
}

}  // namespace aie
