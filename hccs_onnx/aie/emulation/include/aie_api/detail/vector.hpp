// aie::vector<T, N>: a value of N lanes.
#pragma once

#include <array>
#include <cstring>

#include "../../emulation/counters.hpp"
#include "../../emulation/error.hpp"
#include "../../emulation/state.hpp"
#include "srs.hpp"
#include "traits.hpp"

namespace aie {

template <class T, unsigned N>
class vector;

namespace detail {

// For results whose every lane is about to be written: no poison, which would take longer than the operation.
struct unset_t {};
inline constexpr unset_t unset{};

// Operations that N lanes of Bits take in the vector ALU. AIE has no 8-bit ALU: it widens and packs again.
template <class T, unsigned N>
constexpr unsigned alu_operations() {
  constexpr unsigned once = emulation::operations_for(N * type_bits<T>, emulation::alu_bits);
  return is_aie && sizeof(T) == 1 ? 6 * once : once;
}
template <class T, unsigned N>
void count_move() {
  emulation::count(&emulation::operation_counts::move,
                   emulation::operations_for(N * type_bits<T>, emulation::alu_bits));
}
template <class T, unsigned N>
void count_alu() {
  emulation::count(&emulation::operation_counts::move, alu_operations<T, N>());
}

template <class T, unsigned N>
inline void require_lane(unsigned index) {
  if (index >= N) emulation::fail("lane out of range (%u, needs 0..%u)", index, N - 1);
}
inline void require_part(unsigned index, unsigned part, unsigned whole) {
  if (part > whole || index >= whole / part) {
    emulation::fail("part out of range (%u of %u lanes in %u)", index, part, whole);
  }
}

// v[i]: reads as a value, writes into the vector.
template <class T, unsigned N>
class lane_reference {
 public:
  lane_reference(vector<T, N>& parent, unsigned index) : parent_(parent), index_(index) {}
  lane_reference(const lane_reference&) = default;
  operator T() const { return parent_.get(index_); }
  T get() const { return parent_.get(index_); }
  lane_reference& operator=(T value) {
    parent_.set(value, index_);
    return *this;
  }
  lane_reference& operator=(const lane_reference& other) { return *this = other.get(); }

 private:
  vector<T, N>& parent_;
  unsigned index_;
};

}  // namespace detail

template <class T, unsigned N>
class vector {
  static_assert(detail::is_element<T>, "this architecture has no vectors of this type");
  static_assert(detail::is_vector_size<T, N>, "a vector has a power of two lanes and 128 bits or more");

 public:
  using value_type = T;

  std::array<T, N> lanes;  // the emulation's own: code for the device uses get, set and []

  static constexpr unsigned size() { return N; }
  static constexpr unsigned type_bits() { return detail::type_bits<T>; }
  static constexpr unsigned bits() { return N * detail::type_bits<T>; }
  static constexpr unsigned bytes() { return N * sizeof(T); }
  static constexpr bool is_signed() { return std::is_signed_v<T>; }
  static constexpr bool is_integral() { return std::is_integral_v<T>; }
  static constexpr bool is_floating_point() { return std::is_floating_point_v<T>; }
  static constexpr bool is_complex() { return false; }
  static constexpr bool is_real() { return true; }

  vector() { emulation::poison(lanes.data(), sizeof lanes); }  // undefined on the device
  explicit vector(detail::unset_t) : lanes{} {}
  template <class... Values>
    requires(sizeof...(Values) + 1 == N)
  explicit vector(T first, Values... rest) : lanes{first, static_cast<T>(rest)...} {
    emulation::count(&emulation::operation_counts::lane, N);
  }

  T get(unsigned index) const {
    detail::require_lane<T, N>(index);
    emulation::count(&emulation::operation_counts::lane);
    return lanes[index];
  }
  void set(T value, unsigned index) {
    detail::require_lane<T, N>(index);
    emulation::count(&emulation::operation_counts::lane);
    lanes[index] = value;
  }
  T operator[](unsigned index) const { return get(index); }
  detail::lane_reference<T, N> operator[](unsigned index) {
    detail::require_lane<T, N>(index);
    return {*this, index};
  }
  vector& push(T value) {
    detail::count_move<T, N>();
    for (unsigned i = N - 1; i > 0; --i) lanes[i] = lanes[i - 1];
    lanes[0] = value;
    return *this;
  }

  // Naming a part of a register costs nothing: parts of 128 bits and more are registers themselves.
  template <unsigned M>
  vector<T, M> extract(unsigned index) const {
    detail::require_part(index, M, N);
    vector<T, M> part(detail::unset);
    for (unsigned i = 0; i < M; ++i) part.lanes[i] = lanes[index * M + i];
    return part;
  }
  template <unsigned M>
  vector& insert(unsigned index, const vector<T, M>& part) {
    detail::require_part(index, M, N);
    for (unsigned i = 0; i < M; ++i) lanes[index * M + i] = part.lanes[i];
    return *this;
  }
  template <unsigned M>
  vector<T, M> grow(unsigned index = 0) const {
    vector<T, M> whole;  // the new lanes are undefined
    whole.insert(index, *this);
    return whole;
  }
  template <unsigned M>
  vector<T, M> grow_replicate() const {
    vector<T, M> whole(detail::unset);
    for (unsigned i = 0; i < M / N; ++i) whole.insert(i, *this);
    return whole;
  }
  template <unsigned M>
  vector<T, M> grow_extract(unsigned index) const {
    if constexpr (M > N) {
      return grow<M>();
    } else {
      return extract<M>(index);
    }
  }
  template <unsigned M>
  std::array<vector<T, M>, N / M> split()
      const {  // the API gives a tuple; structured bindings and std::get see no difference
    std::array<vector<T, M>, N / M> parts;
    for (unsigned i = 0; i < N / M; ++i) parts[i] = extract<M>(i);
    return parts;
  }

  // The same bits, read as lanes of another type.
  template <class U>
  vector<U, N * sizeof(T) / sizeof(U)> cast_to() const {
    vector<U, N * sizeof(T) / sizeof(U)> result(detail::unset);
    std::memcpy(result.lanes.data(), lanes.data(), sizeof lanes);
    return result;
  }

  template <class U = typename detail::wider<T>::type>
  vector<U, N> unpack() const {
    static_assert(sizeof(U) > sizeof(T), "unpack widens");
    static_assert(std::is_signed_v<U> || !std::is_signed_v<T>, "unpack keeps the sign");
    detail::count_move<U, N>();
    vector<U, N> result(detail::unset);
    for (unsigned i = 0; i < N; ++i) result.lanes[i] = static_cast<U>(lanes[i]);
    return result;
  }
  // AIE-ML saturates or keeps the low bits, as the mode says (UG1583, "pack"). What AIE does with a lane that does not
  // fit, and AIE-ML with one that changes its sign, is nowhere said: undefined there, not offered here.
  template <class U = typename detail::narrower<T>::type>
  vector<U, N> pack() const {
    static_assert(sizeof(U) < sizeof(T), "pack narrows");
    static_assert(detail::is_aie || std::is_signed_v<U> == std::is_signed_v<T>, "pack keeps the sign: cast_to first");
    detail::count_move<T, N>();
    const saturation_mode mode = emulation::state().registers.saturation;
    vector<U, N> result(detail::unset);
    for (unsigned i = 0; i < N; ++i) {
      const bool fits = detail::saturate<U>(int64{lanes[i]}, saturation_mode::saturate) == lanes[i];
      result.lanes[i] = detail::is_aie && !fits ? emulation::poisoned<U>() : detail::saturate<U>(int64{lanes[i]}, mode);
    }
    return result;
  }
};

template <class>
inline constexpr bool is_vector_v = false;
template <class T, unsigned N>
inline constexpr bool is_vector_v<vector<T, N>> = true;
template <class V>
concept Vector = is_vector_v<V>;

namespace detail {

// The type of a scalar operand: v[i] counts as the lane that it names. As in the API, 5 is an int and no int8.
template <class E>
struct scalar_type {
  using type = E;
};
template <class T, unsigned N>
struct scalar_type<lane_reference<T, N>> {
  using type = T;
};
template <class E>
using scalar_type_t = typename scalar_type<std::remove_cvref_t<E>>::type;

template <class E>
concept Scalar = is_element<scalar_type_t<E>>;
template <class E, class T>
concept ScalarOf = std::is_same_v<scalar_type_t<E>, T>;

}  // namespace detail

}  // namespace aie
