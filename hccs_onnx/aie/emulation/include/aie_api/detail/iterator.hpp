// Iterators that step by whole vectors.
#pragma once

#include "memory.hpp"

namespace aie {

namespace detail {

// *it of a writable iterator: reading it loads, assigning to it stores.
template <class T, unsigned N>
class memory_reference {
 public:
  explicit memory_reference(T* at) : at_(at) {}
  memory_reference(const memory_reference&) = default;
  operator vector<T, N>() const { return load_v<N>(at_); }
  const memory_reference& operator=(const vector<T, N>& v) const {
    store_v(at_, v);
    return *this;
  }
  memory_reference& operator=(const memory_reference& other) {
    store_v(at_, load_v<N>(other.at_));
    return *this;
  }

 private:
  T* at_;
};

template <class T, unsigned N>
class vector_iterator {
  static constexpr bool is_const = std::is_const_v<T>;
  using element = std::remove_const_t<T>;

 public:
  using value_type = vector<element, N>;

  explicit vector_iterator(T* at) : at_(at) {}
  auto operator*() const {
    if constexpr (is_const) {
      return load_v<N>(at_);
    } else {
      return memory_reference<T, N>(at_);
    }
  }
  auto operator[](std::ptrdiff_t vectors) const { return *(*this + vectors); }
  vector_iterator& operator+=(std::ptrdiff_t vectors) {
    at_ += vectors * std::ptrdiff_t{N};
    return *this;
  }
  vector_iterator& operator-=(std::ptrdiff_t vectors) { return *this += -vectors; }
  vector_iterator& operator++() { return *this += 1; }
  vector_iterator& operator--() { return *this += -1; }
  vector_iterator operator++(int) {
    const vector_iterator old(*this);
    ++*this;
    return old;
  }
  vector_iterator operator--(int) {
    const vector_iterator old(*this);
    --*this;
    return old;
  }
  friend vector_iterator operator+(vector_iterator it, std::ptrdiff_t vectors) { return it += vectors; }
  friend vector_iterator operator-(vector_iterator it, std::ptrdiff_t vectors) { return it -= vectors; }
  bool operator==(const vector_iterator&) const = default;

 private:
  T* at_;
};

// Starts again at the front after Size elements.
template <class T, unsigned N, std::size_t Size>
class vector_circular_iterator {
  static_assert(Size % N == 0, "a circular buffer holds whole vectors");

 public:
  explicit vector_circular_iterator(T* front) : front_(front) {}
  auto operator*() const { return *vector_iterator<T, N>(front_ + offset_); }
  vector_circular_iterator& operator++() {
    offset_ = (offset_ + N) % Size;
    return *this;
  }
  vector_circular_iterator operator++(int) {
    const vector_circular_iterator old(*this);
    ++*this;
    return old;
  }
  bool operator==(const vector_circular_iterator&) const = default;

 private:
  T* front_;
  std::size_t offset_ = 0;
};

// A buffer port of a kernel.
template <class B>
concept Buffer = requires(B& buffer) {
  buffer.data();
  typename B::value_type;
};

}  // namespace detail

template <unsigned N, class T>
auto begin_vector(T* at) {
  return detail::vector_iterator<T, N>(at);
}
template <unsigned N, class T>
auto cbegin_vector(const T* at) {
  return detail::vector_iterator<const T, N>(at);
}
template <unsigned N, class T>
auto begin_restrict_vector(T* at) {
  return detail::vector_iterator<T, N>(at);
}
template <unsigned N, class T>
auto cbegin_restrict_vector(const T* at) {
  return detail::vector_iterator<const T, N>(at);
}
template <unsigned N, std::size_t Size, class T>
auto begin_vector_circular(T* at) {
  return detail::vector_circular_iterator<T, N, Size>(at);
}
template <unsigned N, std::size_t Size, class T>
auto cbegin_vector_circular(const T* at) {
  return detail::vector_circular_iterator<const T, N, Size>(at);
}

template <unsigned N, detail::Buffer B>
auto begin_vector(B& buffer) {
  return begin_vector<N>(buffer.data());
}
template <unsigned N, detail::Buffer B>
auto cbegin_vector(B& buffer) {
  return cbegin_vector<N>(buffer.data());
}

}  // namespace aie
