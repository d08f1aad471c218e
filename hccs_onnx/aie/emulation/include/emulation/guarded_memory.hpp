// Memory for buffers, in graphs and in tests that call kernels directly.
#pragma once

#include <cstddef>
#include <new>

#include "config.hpp"
#include "state.hpp"

namespace emulation {

// Memory as a buffer of the tile: aligned as the API demands and no better, undefined at first, guarded at both ends.
class guarded_memory {
 public:
  explicit guarded_memory(std::size_t bytes)
      : bytes_(bytes),
        base_(static_cast<unsigned char*>(
            ::operator new(bytes + 2 * guard_bytes + memory_alignment, std::align_val_t{128}))),
        pattern_(state().random) {
    poison(data(), bytes_);
    each_guard_byte([](unsigned char& byte, unsigned char expected) { byte = expected; });
  }
  guarded_memory(const guarded_memory&) = delete;
  guarded_memory& operator=(const guarded_memory&) = delete;
  ~guarded_memory() { ::operator delete(base_, std::align_val_t{128}); }

  unsigned char* data() { return base_ + guard_bytes + memory_alignment; }
  std::size_t size() const { return bytes_; }
  bool is_intact() {
    bool intact = true;
    each_guard_byte([&intact](unsigned char& byte, unsigned char expected) { intact = intact && byte == expected; });
    return intact;
  }

 private:
  static constexpr std::size_t guard_bytes = 128;

  template <class F>
  void each_guard_byte(F f) {
    random_bits pattern = pattern_;
    for (std::size_t i = 0; i < guard_bytes; ++i) f(*(data() - guard_bytes + i), static_cast<unsigned char>(pattern()));
    for (std::size_t i = 0; i < guard_bytes; ++i) f(data()[bytes_ + i], static_cast<unsigned char>(pattern()));
  }

  std::size_t bytes_;
  unsigned char* base_;
  random_bits pattern_;  // what the guards hold follows from here
};

}  // namespace emulation
