// Operations by the kind that decides their issue slot, counted for this thread.
//
// A count is of machine operations: one 1024-bit maximum counts two moves where the vector unit is 512 bits wide. The
// widths below and in aie_api/detail/multiply.hpp follow AM020 and the open LLVM back end's instruction tables. What
// the compiler hoists out of a loop, merges (vlda.ups, vst.srs) or schedules cannot be seen here.
#pragma once

#include <cstdint>

#include "config.hpp"

namespace emulation {

struct operation_counts {
  std::uint64_t load = 0;       // memory to vector register, either load slot
  std::uint64_t store = 0;      // vector register to memory
  std::uint64_t move = 0;       // vector ALU and permute: maximum, add, compare, select, shuffle, unpack
  std::uint64_t broadcast = 0;  // a scalar to all lanes, in the move slot; once only if the loop does not change it
  std::uint64_t multiply = 0;   // multipliers and accumulator adders
  std::uint64_t srs = 0;        // accumulator to vector: shift, round, saturate
  std::uint64_t ups = 0;        // vector to accumulator
  std::uint64_t lane = 0;       // one lane to or from a scalar register; shares the move slot
  std::uint64_t scalar = 0;     // scalar operations with a name in the API: clb
  std::uint64_t pad = 0;  // zero-padding of an int8 multiply's first operand, free if it does not change in the loop

  operation_counts& operator+=(const operation_counts& other) {
    for (const auto& [name, field] : fields) this->*field += other.*field;
    return *this;
  }
  // f(name, operations) for every field.
  template <class F>
  void each(F f) const {
    for (const auto& [name, field] : fields) f(name, this->*field);
  }
  bool operator==(const operation_counts&) const = default;

 private:
  struct named {
    const char* name;
    std::uint64_t operation_counts::* field;
  };
  static const named fields[10];
};
inline const operation_counts::named operation_counts::fields[10] = {
    {"load", &operation_counts::load},         {"store", &operation_counts::store},
    {"move", &operation_counts::move},         {"broadcast", &operation_counts::broadcast},
    {"multiply", &operation_counts::multiply}, {"srs", &operation_counts::srs},
    {"ups", &operation_counts::ups},           {"lane", &operation_counts::lane},
    {"scalar", &operation_counts::scalar},     {"pad", &operation_counts::pad},
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
