// Vectors from and to memory.
#pragma once

#include <cstddef>
#include <cstdint>

#include "vector.hpp"

namespace aie {

// Alignment that serves every vector: what one memory access may ask for at most.
inline constexpr unsigned vector_decl_align = emulation::memory_alignment;
template <class T, unsigned N>
inline constexpr unsigned vector_ldst_align_v =
    N * sizeof(T) < vector_decl_align ? static_cast<unsigned>(N * sizeof(T)) : vector_decl_align;

namespace detail {

inline void require_alignment(const void* address, std::size_t alignment, const char* what) {
  if (reinterpret_cast<std::uintptr_t>(address) % alignment != 0) {
    emulation::fail("%s: address not aligned (needs %zu bytes)", what, alignment);
  }
}
template <class T, unsigned N>
vector<T, N> read(const T* from, unsigned times = 1) {
  emulation::count(&emulation::operation_counts::load,
                   times * emulation::operations_for(vector<T, N>::bits(), emulation::load_bits));
  vector<T, N> v(unset);
  std::memcpy(v.lanes.data(), from, sizeof v.lanes);
  return v;
}
template <class T, unsigned N>
void write(T* to, const vector<T, N>& v, unsigned times = 1) {
  emulation::count(&emulation::operation_counts::store,
                   times * emulation::operations_for(vector<T, N>::bits(), emulation::load_bits));
  std::memcpy(to, v.lanes.data(), sizeof v.lanes);
}

}  // namespace detail

template <unsigned N, class T>
vector<T, N> load_v(const T* from) {
  detail::require_alignment(from, vector_ldst_align_v<T, N>, "load_v");
  return detail::read<T, N>(from);
}
template <class T, unsigned N>
T* store_v(T* to, const vector<T, N>& v) {
  detail::require_alignment(to, vector_ldst_align_v<T, N>, "store_v");
  detail::write(to, v);
  return to;
}
// aligned: elements that the address is known to be a multiple of. Two aligned accesses and a shift.
template <unsigned N, class T>
vector<T, N> load_unaligned_v(const T* from, unsigned aligned = 1) {
  detail::require_alignment(from, aligned * sizeof(T), "load_unaligned_v");
  detail::count_move<T, N>();
  return detail::read<T, N>(from, 2);
}
template <class T, unsigned N>
T* store_unaligned_v(T* to, const vector<T, N>& v, unsigned aligned = 1) {
  detail::require_alignment(to, aligned * sizeof(T), "store_unaligned_v");
  detail::count_move<T, N>();
  detail::write(to, v, 2);
  return to;
}
// From the aligned address at or below.
template <unsigned N, class T>
vector<T, N> load_floor_v(const T* from) {
  const auto address = reinterpret_cast<std::uintptr_t>(from);
  return detail::read<T, N>(reinterpret_cast<const T*>(address - address % vector_ldst_align_v<T, N>));
}

}  // namespace aie
