// Which vectors, accumulators and products exist on which architecture (AIE API guide, UG1529: tables "Supported vector
// types", "Supported accumulator types" and "Default accumulator tag").
#pragma once

#include <bit>
#include <type_traits>

#include "../../emulation/config.hpp"
#include "../../emulation/types.hpp"

namespace aie::detail {

using emulation::is_aie;
using emulation::is_ml_v2;

template <class T, class... Candidates>
inline constexpr bool one_of = (std::is_same_v<T, Candidates> || ...);

// ------------------------------------------------------------------------------------------------------- elements
template <class T>
inline constexpr bool is_element =
    is_aie ? one_of<T, int8, uint8, int16, int32, float> : one_of<T, int8, uint8, int16, uint16, int32, uint32, float>;
template <class T>
concept Integer = is_element<T> && std::is_integral_v<T>;

template <class T>
inline constexpr unsigned type_bits = sizeof(T) * 8;

// 128 to 1024 bits are native, more is an array of native vectors. The upper bound is ours, against slips.
template <class T, unsigned N>
inline constexpr bool is_vector_size = std::has_single_bit(N) && N * type_bits<T> >= 128 && N * type_bits<T> <= 8192;

template <class T>
struct wider {  // the element type that unpack() gives
  using type = void;
};
template <>
struct wider<int8> {
  using type = int16;
};
template <>
struct wider<uint8> {
  using type = std::conditional_t<is_aie, int16, uint16>;
};
template <>
struct wider<int16> {
  using type = int32;
};
template <>
struct wider<uint16> {
  using type = uint32;
};

template <class T>
struct narrower {  // the element type that pack() gives
  using type = void;
};
template <>
struct narrower<int16> {
  using type = int8;
};
template <>
struct narrower<uint16> {
  using type = uint8;
};
template <>
struct narrower<int32> {
  using type = int16;
};
template <>
struct narrower<uint32> {
  using type = uint16;
};

// --------------------------------------------------------------------------------------------------- accumulators
template <class Tag>
inline constexpr unsigned requested_bits = 0;
template <>
inline constexpr unsigned requested_bits<acc32> = 32;
template <>
inline constexpr unsigned requested_bits<acc40> = 40;
template <>
inline constexpr unsigned requested_bits<acc48> = 48;
template <>
inline constexpr unsigned requested_bits<acc56> = 56;
template <>
inline constexpr unsigned requested_bits<acc64> = 64;
template <>
inline constexpr unsigned requested_bits<acc72> = 72;
template <>
inline constexpr unsigned requested_bits<acc80> = 80;

template <class Tag>
concept AccumTag = requested_bits<Tag> != 0 && (is_aie || requested_bits<Tag> <= 64);

// What a lane really has.
template <AccumTag Tag>
inline constexpr unsigned accumulator_bits =
    is_aie ? (requested_bits<Tag> <= 48 ? 48 : 80) : (requested_bits<Tag> <= 32 ? 32 : 64);

template <AccumTag Tag, unsigned N>
inline constexpr bool is_accum_size =
    accumulator_bits<Tag> == 48 || accumulator_bits<Tag> == 32 ? std::has_single_bit(N) && N >= 8 && N <= 128
                                                               : std::has_single_bit(N) && N >= 4 && N <= 64;

// The factor types that have a product, either way round.
template <class A, class B>
inline constexpr bool has_product = sizeof(A) + sizeof(B) != 5;  // no 8 x 32 bits

template <class A, class B>
using default_tag = std::conditional_t<is_aie, std::conditional_t<sizeof(A) + sizeof(B) == 8, acc80, acc48>,
                                       std::conditional_t<(sizeof(A) + sizeof(B) > 4), acc64, acc32>>;

template <class Tag, class A, class B>
using product_tag = std::conditional_t<std::is_same_v<Tag, accauto>, default_tag<A, B>, Tag>;

}  // namespace aie::detail
