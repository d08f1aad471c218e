// Buffer arguments of kernels, and the guarded memory behind them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <new>

#include "../emulation/config.hpp"
#include "../emulation/error.hpp"
#include "../emulation/state.hpp"

namespace adf {

inline constexpr unsigned inherited_extent = 0;
template <unsigned... Samples>
struct extents {
  static constexpr unsigned size = (Samples * ... * 1u);
};

namespace detail {

template <class... Config>
inline constexpr unsigned extent_of = 0;
template <unsigned... Samples, class... Rest>
inline constexpr unsigned extent_of<extents<Samples...>, Rest...> = extents<Samples...>::size;

template <class T>
class io_buffer {
 public:
  using value_type = T;

  io_buffer(T* data, std::size_t size) : data_(data), size_(size) {}
  T* data() { return data_; }
  const T* data() const { return data_; }
  std::size_t size() const { return size_; }
  // Locks of asynchronous buffers: the runner gives the buffer to one kernel alone, so there is nothing to wait for.
  void acquire() {}
  void release() {}

 private:
  T* data_;
  std::size_t size_;
};

}  // namespace detail

// Config: extents<N>, or nothing where the graph sets dimensions(port).
template <class T, class... Config>
class input_buffer : public detail::io_buffer<T> {
 public:
  using detail::io_buffer<T>::io_buffer;
};
template <class T, class... Config>
class output_buffer : public detail::io_buffer<T> {
 public:
  using detail::io_buffer<T>::io_buffer;
};
template <class T, class... Config>
using input_async_buffer = input_buffer<T, Config...>;
template <class T, class... Config>
using output_async_buffer = output_buffer<T, Config...>;

namespace detail {

// Memory as a buffer of the tile: aligned as the API demands and no better, undefined at first, guarded at both ends.
class guarded_memory {
 public:
  explicit guarded_memory(std::size_t bytes)
      : bytes_(bytes),
        base_(static_cast<unsigned char*>(::operator new(bytes + 2 * guard_bytes + alignment, std::align_val_t{128}))),
        pattern_(emulation::state().random) {
    emulation::poison(data(), bytes_);
    each_guard_byte([](unsigned char& byte, unsigned char expected) { byte = expected; });
  }
  guarded_memory(const guarded_memory&) = delete;
  guarded_memory& operator=(const guarded_memory&) = delete;
  ~guarded_memory() { ::operator delete(base_, std::align_val_t{128}); }

  unsigned char* data() { return base_ + guard_bytes + alignment; }
  std::size_t size() const { return bytes_; }
  bool is_intact() {
    bool intact = true;
    each_guard_byte([&intact](unsigned char& byte, unsigned char expected) { intact = intact && byte == expected; });
    return intact;
  }

 private:
  static constexpr std::size_t alignment = emulation::is_aie ? 16 : emulation::is_ml_v2 ? 64 : 32;
  static constexpr std::size_t guard_bytes = 128;

  template <class F>
  void each_guard_byte(F f) {
    emulation::random_bits pattern = pattern_;
    for (std::size_t i = 0; i < guard_bytes; ++i) f(*(data() - guard_bytes + i), static_cast<unsigned char>(pattern()));
    for (std::size_t i = 0; i < guard_bytes; ++i) f(data()[bytes_ + i], static_cast<unsigned char>(pattern()));
  }

  std::size_t bytes_;
  unsigned char* base_;
  emulation::random_bits pattern_;  // what the guards hold follows from here
};

}  // namespace detail
}  // namespace adf
