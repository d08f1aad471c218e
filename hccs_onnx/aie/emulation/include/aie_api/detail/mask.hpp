// aie::mask<N>: one bit a lane, the result of comparisons.
#pragma once

#include <array>

#include "../../emulation/error.hpp"
#include "../../emulation/state.hpp"
#include "../../emulation/types.hpp"
#include "traits.hpp"

namespace aie {

template <unsigned N>
class mask {
  static_assert(std::has_single_bit(N) && N >= 4, "a mask has a power of two bits");

 public:
  std::array<bool, N> bits_;  // the emulation's own

  static constexpr unsigned size() { return N; }

  mask() {  // undefined on the device
    for (bool& bit : bits_) bit = (emulation::state().random() & 1) != 0;
  }

  // Lowest lanes first.
  template <class... Words>
    requires(sizeof...(Words) == (N + 31) / 32)
  static mask from_uint32(Words... words) {
    const uint32 list[] = {static_cast<uint32>(words)...};
    mask result;
    for (unsigned i = 0; i < N; ++i) result.bits_[i] = (list[i / 32] >> (i % 32) & 1u) != 0;
    return result;
  }
  template <class... Words>
    requires(sizeof...(Words) == (N + 63) / 64)
  static mask from_uint64(Words... words) {
    const uint64 list[] = {static_cast<uint64>(words)...};
    mask result;
    for (unsigned i = 0; i < N; ++i) result.bits_[i] = (list[i / 64] >> (i % 64) & 1u) != 0;
    return result;
  }
  uint32 to_uint32(unsigned word = 0) const { return static_cast<uint32>(bits_of(word * 32, 32)); }
  uint64 to_uint64(unsigned word = 0) const { return bits_of(word * 64, 64); }

  bool test(unsigned index) const {
    require_bit(index);
    return bits_[index];
  }
  void set(unsigned index) {
    require_bit(index);
    bits_[index] = true;
  }
  void clear(unsigned index) {
    require_bit(index);
    bits_[index] = false;
  }
  void clear() { bits_.fill(false); }
  unsigned count() const {
    unsigned ones = 0;
    for (bool bit : bits_) ones += bit ? 1u : 0u;
    return ones;
  }
  bool empty() const { return count() == 0; }
  bool full() const { return count() == N; }

  mask operator~() const {
    mask result(*this);
    for (bool& bit : result.bits_) bit = !bit;
    return result;
  }
  mask& operator&=(const mask& other) {
    for (unsigned i = 0; i < N; ++i) bits_[i] = bits_[i] && other.bits_[i];
    return *this;
  }
  mask& operator|=(const mask& other) {
    for (unsigned i = 0; i < N; ++i) bits_[i] = bits_[i] || other.bits_[i];
    return *this;
  }
  mask& operator^=(const mask& other) {
    for (unsigned i = 0; i < N; ++i) bits_[i] = bits_[i] != other.bits_[i];
    return *this;
  }
  friend mask operator&(mask a, const mask& b) { return a &= b; }
  friend mask operator|(mask a, const mask& b) { return a |= b; }
  friend mask operator^(mask a, const mask& b) { return a ^= b; }

 private:
  static void require_bit(unsigned index) {
    if (index >= N) emulation::fail("mask bit out of range (%u, needs 0..%u)", index, N - 1);
  }
  uint64 bits_of(unsigned first, unsigned number) const {
    uint64 word = 0;
    for (unsigned i = 0; i < number && first + i < N; ++i) word |= uint64{bits_[first + i]} << i;
    return word;
  }
};

}  // namespace aie
