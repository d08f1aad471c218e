// What a core knows beside its registers: rounding and saturation mode. And where undefined values come from.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "config.hpp"
#include "error.hpp"

namespace aie {

enum class saturation_mode : unsigned {
  none = 0,       // keeps the low bits
  saturate = 1,   // limits to the type's range
  symmetric = 3,  // limits to -max..max
  truncate [[deprecated("use saturate")]] = 1,
};

#if __AIE_ARCH__ == 10
enum class rounding_mode : unsigned {
  floor = 0,
  ceil = 1,
  positive_inf = 2,
  negative_inf = 3,
  symmetric_inf = 4,
  symmetric_zero = 5,
  conv_even = 6,
  conv_odd = 7,
};
#else
enum class rounding_mode : unsigned {
  floor = 0,
  ceil = 1,
  symmetric_floor = 2,
  symmetric_ceil = 3,
  negative_inf = 8,
  positive_inf = 9,
  symmetric_zero = 10,
  symmetric_inf = 11,
  conv_even = 12,
  conv_odd = 13,
};
#endif

}  // namespace aie

namespace emulation {

// Small and fast; good enough to make a wrong use of undefined values show.
class random_bits {
 public:
  explicit constexpr random_bits(std::uint64_t seed) : state_(mix(seed + 0x9e3779b97f4a7c15u)) {}
  constexpr std::uint64_t operator()() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }

 private:
  static constexpr std::uint64_t mix(std::uint64_t z) {  // splitmix64: neighbouring seeds must not look alike
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (z ^ (z >> 31)) | 1u;  // never 0, where it would stay
  }
  std::uint64_t state_;
};

struct control_registers {
  aie::rounding_mode rounding{};
  aie::saturation_mode saturation{};
};

// AIE leaves the control registers undefined at reset, AIE-ML starts with floor and none: in both cases a kernel that
// does not set them is wrong, so here they start at random.
inline control_registers random_registers(random_bits& random) {
  using R = aie::rounding_mode;
  constexpr R modes[] = {R::floor,         R::ceil,           R::positive_inf, R::negative_inf,
                         R::symmetric_inf, R::symmetric_zero, R::conv_even,    R::conv_odd};
  constexpr aie::saturation_mode limits[] = {aie::saturation_mode::none, aie::saturation_mode::saturate,
                                             aie::saturation_mode::symmetric};
  return {modes[random() % 8], limits[random() % 3]};
}

inline std::uint64_t initial_seed() {
  const char* text = std::getenv("AIE_EMULATION_SEED");
  return text != nullptr ? std::strtoull(text, nullptr, 0) : std::uint64_t{AIE_EMULATION_SEED};
}

struct core_state {
  random_bits random;
  control_registers registers;
  unsigned inv_noise = AIE_EMULATION_INV_NOISE;
  std::uint64_t wraps = 0;  // accumulator lanes that wrapped so far

  explicit core_state(std::uint64_t seed) : random(seed), registers(random_registers(random)) {}
};

// One a thread.
inline core_state& state() {
  static thread_local core_state core(initial_seed());
  return core;
}

// Starts anew: registers, poison and noise follow from the seed alone.
inline void seed(std::uint64_t value) {
  state() = core_state(value);
}

inline void poison(void* memory, std::size_t bytes) {
  auto* at = static_cast<unsigned char*>(memory);
  for (; bytes >= 8; at += 8, bytes -= 8) {
    const std::uint64_t bits = state().random();
    std::memcpy(at, &bits, 8);
  }
  const std::uint64_t bits = state().random();
  std::memcpy(at, &bits, bytes);
}

template <class T>
T poisoned() {
  T value;
  poison(&value, sizeof value);
  return value;
}

inline void note_wrap() {
  ++state().wraps;
#if AIE_EMULATION_TRAP
  fail("an accumulator wrapped");
#endif
}

}  // namespace emulation

namespace aie {

inline rounding_mode get_rounding() {
  return emulation::state().registers.rounding;
}
inline saturation_mode get_saturation() {
  return emulation::state().registers.saturation;
}
inline void set_rounding(rounding_mode mode) {
  emulation::state().registers.rounding = mode;
}
inline void set_saturation(saturation_mode mode) {
  emulation::state().registers.saturation = mode;
}
inline rounding_mode swap_rounding(rounding_mode mode) {
  const rounding_mode old = get_rounding();
  set_rounding(mode);
  return old;
}
inline saturation_mode swap_saturation(saturation_mode mode) {
  const saturation_mode old = get_saturation();
  set_saturation(mode);
  return old;
}

}  // namespace aie
