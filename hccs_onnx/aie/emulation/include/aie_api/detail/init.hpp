// New vectors and accumulators: broadcast, zeros, concat, conversions between vector and accumulator.
#pragma once

#include "accum.hpp"

namespace aie {

template <class T, unsigned N, class E>
vector<T, N> broadcast(E value) {
  emulation::count(&emulation::operation_counts::broadcast,
                   emulation::operations_for(vector<T, N>::bits(), emulation::alu_bits));
  vector<T, N> result(detail::unset);
  result.lanes.fill(static_cast<T>(static_cast<detail::scalar_type_t<E>>(value)));
  return result;
}

template <class T, unsigned N>
auto zeros() {
  if constexpr (detail::AccumTag<T>) {
    accum<T, N> result(detail::unset);  // "clear" is free: the first mac becomes a mul
    result.lanes.fill(0);
    return result;
  } else {
    return broadcast<T, N>(T{0});
  }
}

template <class T, unsigned N, class... Rest>
  requires(sizeof...(Rest) > 0 && (std::is_same_v<vector<T, N>, Rest> && ...))
vector<T, N * (1 + sizeof...(Rest))> concat(const vector<T, N>& first, const Rest&... rest) {
  vector<T, N * (1 + sizeof...(Rest))> result(detail::unset);
  unsigned index = 0;
  result.insert(index++, first);
  (result.insert(index++, rest), ...);
  return result;
}
template <class Tag, unsigned N, class... Rest>
  requires(sizeof...(Rest) > 0 && (std::is_same_v<accum<Tag, N>, Rest> && ...))
accum<Tag, N * (1 + sizeof...(Rest))> concat(const accum<Tag, N>& first, const Rest&... rest) {
  accum<Tag, N * (1 + sizeof...(Rest))> result(detail::unset);
  unsigned index = 0;
  result.insert(index++, first);
  (result.insert(index++, rest), ...);
  return result;
}

template <class U, class T, unsigned N>
auto vector_cast(const vector<T, N>& v) {
  return v.template cast_to<U>();
}
template <class T, unsigned N>
auto unpack(const vector<T, N>& v) {
  return v.unpack();
}
template <class U, class T, unsigned N>
auto unpack(const vector<T, N>& v) {
  return v.template unpack<U>();
}
template <class T, unsigned N>
auto pack(const vector<T, N>& v) {
  return v.pack();
}
template <class U, class T, unsigned N>
auto pack(const vector<T, N>& v) {
  return v.template pack<U>();
}

template <detail::AccumTag Tag, class T, unsigned N>
accum<Tag, N> from_vector(const vector<T, N>& v, int shift = 0) {
  return accum<Tag, N>(v, shift);
}
template <class T, class Tag, unsigned N>
vector<T, N> to_vector(const accum<Tag, N>& a, int shift = 0) {
  return a.template to_vector<T>(shift);
}

}  // namespace aie
