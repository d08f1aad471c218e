// aie::accum<Tag, N>: N lanes of the accumulator that the architecture has for the tag.
#pragma once

#include "vector.hpp"

namespace aie {

template <class Tag, unsigned N>
class accum;

namespace detail {

// Holds a lane of so many bits, and what a sum or product of such lanes may need on the way.
template <unsigned Bits>
using lane_type = std::conditional_t<(Bits <= 64), int64, emulation::int128>;
template <unsigned Bits>
using wide_type = std::conditional_t<(Bits <= 48), int64, emulation::int128>;

// Accumulators wrap at their width.
template <unsigned Bits, class W>
lane_type<Bits> wrap(W value) {
  constexpr unsigned spare = sizeof(W) * 8 - Bits;
  using U = std::conditional_t<sizeof(W) == 8, uint64, emulation::uint128>;
  const W kept = static_cast<W>(static_cast<U>(value) << spare) >> spare;
  if (kept != value) emulation::note_wrap();
  return static_cast<lane_type<Bits>>(kept);
}

// AIE-ML saturates before it shifts, where a saturation mode is set (UG1583, "ups"); AIE does not. The sign that
// 32 unsigned bits would have in 32 bits of accumulator is nowhere said, so they must not need it.
template <unsigned Bits>
lane_type<Bits> shift_up(int64 value, int shift) {
  using wide = emulation::int128;
  const saturation_mode mode = emulation::state().registers.saturation;
  if (Bits == 32 && shift == 0 && value > INT32_MAX) emulation::fail("a uint32 of 2^31 or more in an acc32 lane");
  if (!is_aie && mode != saturation_mode::none) {
    const wide most = (wide{1} << (Bits - 1)) - 1;
    const wide high = most >> shift;
    const wide low = (mode == saturation_mode::symmetric ? -most : -most - 1) >> shift;
    value = value > high ? static_cast<int64>(high) : value < low ? static_cast<int64>(low) : value;
  }
  return wrap<Bits>(wide{value} * (wide{1} << shift));
}

template <unsigned Bits, unsigned N>
constexpr unsigned accumulator_operations(unsigned width = 1024) {
  return emulation::operations_for(N * Bits, width);
}

}  // namespace detail

template <class Tag, unsigned N>
class accum {
  static_assert(detail::AccumTag<Tag>, "this architecture has no such accumulator");
  static_assert(detail::is_accum_size<Tag, N>,
                "an accumulator of up to 48 bits has 8 to 128 lanes, a wider one 4 to 64");

  static constexpr unsigned lane_bits = detail::accumulator_bits<Tag>;
  using wide = detail::wide_type<lane_bits>;

 public:
  using value_type = Tag;

  std::array<detail::lane_type<lane_bits>, N> lanes;  // the emulation's own

  static constexpr unsigned size() { return N; }
  static constexpr unsigned accum_min_bits() { return detail::requested_bits<Tag>; }
  static constexpr unsigned accum_bits() { return lane_bits; }
  static constexpr unsigned value_bits() { return lane_bits; }
  static constexpr unsigned bits() { return N * lane_bits; }
  static constexpr bool is_complex() { return false; }
  static constexpr bool is_real() { return true; }
  static constexpr bool is_floating_point() { return false; }

  accum() {  // undefined on the device
    emulation::poison(lanes.data(), sizeof lanes);
    for (auto& lane : lanes) lane >>= sizeof lane * 8 - lane_bits;
  }
  explicit accum(detail::unset_t) : lanes{} {}
  template <class Other>
    requires(detail::accumulator_bits<Other> == lane_bits)
  accum(const accum<Other, N>& other) : lanes(other.lanes) {}
  template <detail::Integer T>
  explicit accum(const vector<T, N>& v, int shift = 0) {
    from_vector(v, shift);
  }

  template <detail::Integer T>
  void from_vector(const vector<T, N>& v, int shift = 0) {
    if (shift < 0 || shift > detail::max_shift) {
      emulation::fail("upshift out of range (%d, needs 0..%d)", shift, detail::max_shift);
    }
    emulation::count(&emulation::operation_counts::ups, detail::accumulator_operations<lane_bits, N>());
    for (unsigned i = 0; i < N; ++i) lanes[i] = detail::shift_up<lane_bits>(int64{v.lanes[i]}, shift);
  }
  // Signedness chosen when it runs: the vector's bits are read as signed or as unsigned.
  template <detail::Integer T>
    requires(!detail::is_aie)
  void from_vector_sign(const vector<T, N>& v, bool is_signed, int shift = 0) {
    if (is_signed) {
      from_vector(v.template cast_to<std::make_signed_t<T>>(), shift);
    } else {
      from_vector(v.template cast_to<std::make_unsigned_t<T>>(), shift);
    }
  }

  template <detail::Integer T>
  vector<T, N> to_vector(int shift = 0) const {
    detail::require_shift(shift);
    emulation::count(&emulation::operation_counts::srs,
                     emulation::operations_for(vector<T, N>::bits(), emulation::alu_bits));
    vector<T, N> result(detail::unset);
    for (unsigned i = 0; i < N; ++i) result.lanes[i] = detail::shift_round_saturate<T>(wide{lanes[i]}, shift);
    return result;
  }
  template <detail::Integer T>
    requires(!detail::is_aie)
  vector<T, N> to_vector_sign(bool is_signed, int shift = 0) const {
    if (is_signed) return to_vector<std::make_signed_t<T>>(shift).template cast_to<T>();
    return to_vector<std::make_unsigned_t<T>>(shift).template cast_to<T>();
  }

  template <unsigned M>
  accum<Tag, M> extract(unsigned index) const {
    detail::require_part(index, M, N);
    accum<Tag, M> part(detail::unset);
    for (unsigned i = 0; i < M; ++i) part.lanes[i] = lanes[index * M + i];
    return part;
  }
  template <unsigned M, class Other>
    requires(detail::accumulator_bits<Other> == lane_bits)
  accum& insert(unsigned index, const accum<Other, M>& part) {
    detail::require_part(index, M, N);
    for (unsigned i = 0; i < M; ++i) lanes[index * M + i] = part.lanes[i];
    return *this;
  }
  template <unsigned M>
  accum<Tag, M> grow() const {
    accum<Tag, M> whole;  // the new lanes are undefined
    whole.insert(0, *this);
    return whole;
  }
  template <unsigned M>
  accum<Tag, M> grow_replicate() const {
    accum<Tag, M> whole(detail::unset);
    for (unsigned i = 0; i < M / N; ++i) whole.insert(i, *this);
    return whole;
  }
  template <unsigned M>
  accum<Tag, M> grow_extract(unsigned index) const {
    if constexpr (M > N) {
      return grow<M>();
    } else {
      return extract<M>(index);
    }
  }
};

template <class>
inline constexpr bool is_accum_v = false;
template <class Tag, unsigned N>
inline constexpr bool is_accum_v<accum<Tag, N>> = true;
template <class A>
concept Accum = is_accum_v<A>;

}  // namespace aie
