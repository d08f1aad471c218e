// Moving lanes within and between vectors.
#pragma once

#include <utility>

#include "init.hpp"

namespace aie {

namespace detail {

inline void require_distance(unsigned n, unsigned most) {
  if (n > most) emulation::fail("shuffle: distance out of range (%u, needs 0..%u)", n, most);
}
// AIE shifts 8-bit lanes of up to 512 bits as 16-bit ones, and zips single ones one by one.
template <class T, unsigned N>
void count_shuffle() {
  const bool is_widened = is_aie && sizeof(T) == 1 && N <= 64;
  emulation::count(&emulation::operation_counts::move,
                   is_widened ? 3 * emulation::operations_for(N * 16, emulation::alu_bits)
                              : emulation::operations_for(N * type_bits<T>, emulation::alu_bits));
}
template <class T, unsigned N>
void count_zip(unsigned chunk) {
  if (is_aie && sizeof(T) == 1 && chunk == 1) {
    emulation::count(&emulation::operation_counts::lane, 4 * N);
  } else {
    count_move<T, 2 * N>();
  }
}
template <class T, unsigned N>
vector<T, N> move_down(const vector<T, N>& v, const vector<T, N>& fill, unsigned n) {
  count_shuffle<T, N>();
  vector<T, N> result(unset);
  for (unsigned i = 0; i < N; ++i) result.lanes[i] = i + n < N ? v.lanes[i + n] : fill.lanes[i + n - N];
  return result;
}
template <class T, unsigned N>
vector<T, N> move_up(const vector<T, N>& v, const vector<T, N>& fill, unsigned n) {
  count_shuffle<T, N>();
  vector<T, N> result(unset);
  for (unsigned i = 0; i < N; ++i) result.lanes[i] = i >= n ? v.lanes[i - n] : fill.lanes[i + N - n];
  return result;
}
template <unsigned N>
void require_chunk(unsigned chunk) {
  if (!std::has_single_bit(chunk) || chunk > N) {
    emulation::fail("chunk size not allowed (%u, needs a power of two up to %u)", chunk, N);
  }
}
// from(i) is the lane of v that goes to lane i.
template <class T, unsigned N, class F>
vector<T, N> permute(const vector<T, N>& v, F from) {
  count_move<T, N>();
  vector<T, N> result(unset);
  for (unsigned i = 0; i < N; ++i) result.lanes[i] = v.lanes[from(i)];
  return result;
}

}  // namespace detail

// The lanes that nothing moves into come from fill: its first lanes (down) or its last (up). Not for n == N, where the
// API gives v or fill, as the compiler knows n or not.
template <class T, unsigned N>
vector<T, N> shuffle_down_fill(const vector<T, N>& v, const vector<T, N>& fill, unsigned n) {
  detail::require_distance(n, N - 1);
  return detail::move_down(v, fill, n);
}
template <class T, unsigned N>
vector<T, N> shuffle_up_fill(const vector<T, N>& v, const vector<T, N>& fill, unsigned n) {
  detail::require_distance(n, N - 1);
  return detail::move_up(v, fill, n);
}
// The same with undefined lanes in their place.
template <class T, unsigned N>
vector<T, N> shuffle_down(const vector<T, N>& v, unsigned n) {
  detail::require_distance(n, N);
  return detail::move_down(v, vector<T, N>(), n);
}
template <class T, unsigned N>
vector<T, N> shuffle_up(const vector<T, N>& v, unsigned n) {
  detail::require_distance(n, N);
  return detail::move_up(v, vector<T, N>(), n);
}
template <class T, unsigned N>
vector<T, N> shuffle_down_rotate(const vector<T, N>& v, unsigned n) {
  detail::require_distance(n, N);
  return detail::move_down(v, v, n);
}
template <class T, unsigned N>
vector<T, N> shuffle_up_rotate(const vector<T, N>& v, unsigned n) {
  detail::require_distance(n, N);
  return detail::move_up(v, v, n);
}
template <class T, unsigned N>
vector<T, N> shuffle_down_replicate(const vector<T, N>& v, unsigned n) {
  return shuffle_down_fill(v, broadcast<T, N>(v.lanes[N - 1]), n);
}
template <class T, unsigned N>
vector<T, N> shuffle_up_replicate(const vector<T, N>& v, unsigned n) {
  return shuffle_up_fill(v, broadcast<T, N>(v.lanes[0]), n);
}

template <class T, unsigned N>
vector<T, N> reverse(const vector<T, N>& v) {
  return detail::permute(v, [](unsigned i) { return N - 1 - i; });
}
// v is a matrix of row x col lanes; the result is one of col x row.
template <class T, unsigned N>
vector<T, N> transpose(const vector<T, N>& v, unsigned row, unsigned col) {
  if (row * col != N) emulation::fail("transpose: %u x %u is not the vector's %u lanes", row, col, N);
  return detail::permute(v, [row, col](unsigned i) { return i % row * col + i / row; });
}

// { a[0:c], b[0:c], a[c:2c], b[c:2c], ... }, lower and upper half.
template <class T, unsigned N>
std::pair<vector<T, N>, vector<T, N>> interleave_zip(const vector<T, N>& a, const vector<T, N>& b, unsigned chunk) {
  detail::require_chunk<N>(chunk);
  detail::count_zip<T, N>(chunk);
  std::pair<vector<T, N>, vector<T, N>> result{vector<T, N>(detail::unset), vector<T, N>(detail::unset)};
  for (unsigned i = 0; i < 2 * N; ++i) {
    const unsigned block = i / chunk;
    const unsigned from = block / 2 * chunk + i % chunk;
    const T value = block % 2 == 0 ? a.lanes[from] : b.lanes[from];
    (i < N ? result.first : result.second).lanes[i % N] = value;
  }
  return result;
}
// The way back: even chunks of a and b first, then the odd ones.
template <class T, unsigned N>
std::pair<vector<T, N>, vector<T, N>> interleave_unzip(const vector<T, N>& a, const vector<T, N>& b, unsigned chunk) {
  detail::require_chunk<N>(chunk);
  detail::count_zip<T, N>(chunk);
  std::pair<vector<T, N>, vector<T, N>> result{vector<T, N>(detail::unset), vector<T, N>(detail::unset)};
  for (unsigned i = 0; i < 2 * N; ++i) {
    const unsigned block = i / chunk;
    const unsigned to = block / 2 * chunk + i % chunk;
    (block % 2 == 0 ? result.first : result.second).lanes[to] = i < N ? a.lanes[i] : b.lanes[i - N];
  }
  return result;
}

namespace detail {
template <class T, unsigned N>
vector<T, N / 2> filter(const vector<T, N>& v, unsigned step, unsigned odd) {
  require_chunk<N / 2>(step);
  count_move<T, N>();
  vector<T, N / 2> result(unset);
  for (unsigned i = 0; i < N / 2; ++i) result.lanes[i] = v.lanes[(2 * (i / step) + odd) * step + i % step];
  return result;
}
}  // namespace detail

// Every second chunk of step lanes, from the first (even) or second (odd) on.
template <class T, unsigned N>
vector<T, N / 2> filter_even(const vector<T, N>& v, unsigned step = 1) {
  return detail::filter(v, step, 0);
}
template <class T, unsigned N>
vector<T, N / 2> filter_odd(const vector<T, N>& v, unsigned step = 1) {
  return detail::filter(v, step, 1);
}

}  // namespace aie
