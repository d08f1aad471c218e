// Operations by the kind that decides their issue slot, counted for this thread.
//
// A count is of machine operations: one 1024-bit maximum counts two moves where the vector unit is 512 bits wide.
// Widths are those of mac_lanes() and the constants below; they follow AM020 and the open LLVM back end's instruction
// tables. What the compiler hoists out of a loop, merges (vlda.ups, vst.srs) or schedules cannot be seen here.
#pragma once

#include <cstdint>

#include "config.hpp"

namespace emulation {

struct operation_counts {
  std::uint64_t load = 0;      // memory to vector register, either load slot
  std::uint64_t store = 0;     // vector register to memory
  std::uint64_t move = 0;      // vector ALU and permute: maximum, add, compare, select, shuffle, broadcast, unpack
  std::uint64_t multiply = 0;  // multipliers and accumulator adders
  std::uint64_t srs = 0;       // accumulator to vector: shift, round, saturate
  std::uint64_t ups = 0;       // vector to accumulator
  std::uint64_t lane = 0;      // one lane to or from a scalar register; shares the move slot
  std::uint64_t scalar = 0;    // scalar operations with a name in the API: clb
  std::uint64_t pad = 0;  // zero-padding of an int8 multiply's first operand, free if it does not change in the loop

  operation_counts& operator+=(const operation_counts& other) {
    load += other.load, store += other.store, move += other.move, multiply += other.multiply, srs += other.srs;
    ups += other.ups, lane += other.lane, scalar += other.scalar, pad += other.pad;
    return *this;
  }
  bool operator==(const operation_counts&) const = default;
};

inline operation_counts& counters() {
  static thread_local constinit operation_counts counts;
  return counts;
}
inline void reset_counters() {
  counters() = {};
}

using counter = std::uint64_t operation_counts::*;
inline void count(counter which, unsigned operations = 1) {
#if AIE_EMULATION_COUNT
  counters().*which += operations;
#else
  static_cast<void>(which), static_cast<void>(operations);
#endif
}

inline constexpr unsigned load_bits = is_ml_v2 ? 512 : 256;
inline constexpr unsigned alu_bits = 512;
constexpr unsigned operations_for(unsigned bits, unsigned width) {
  return (bits + width - 1) / width;
}

}  // namespace emulation
