// Buffer arguments of kernels.
#pragma once

#include <cstddef>

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

}  // namespace adf
