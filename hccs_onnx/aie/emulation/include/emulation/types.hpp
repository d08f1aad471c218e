// Names that kernel sources expect to find globally: element types, accumulator tags, the chess compiler's pragmas.
#pragma once

#include <cstdint>

using int8 = std::int8_t;
using uint8 = std::uint8_t;
using int16 = std::int16_t;
using uint16 = std::uint16_t;
using int32 = std::int32_t;
using uint32 = std::uint32_t;
using int64 = std::int64_t;
using uint64 = std::uint64_t;

// A tag asks for at least so many bits; accumulator_bits() in aie_api/detail/traits.hpp says how many there are.
struct acc32 {};
struct acc40 {};
struct acc48 {};
struct acc56 {};
struct acc64 {};
struct acc72 {};
struct acc80 {};
struct accauto {};

#define chess_prepare_for_pipelining
#define chess_loop_range(...)
#define chess_loop_count(...)
#define chess_flatten_loop
#define chess_unroll_loop(...)
#define chess_separator()
#define chess_separator_scheduler(...)
#define chess_storage(...)
#define chess_protect_access
#define chess_copy(value) (value)

namespace emulation {
__extension__ using int128 = __int128;
__extension__ using uint128 = unsigned __int128;
}  // namespace emulation
