// The little floating point that integer kernels use: reciprocals and conversions.
//
// aie::inv and aie::invsqrt are approximations whose last bits no document gives. So they are wrong here by up to
// state().inv_noise units in the last place, anew each time: a kernel has to be right for all of that.
#pragma once

#include <cmath>
#include <limits>

#include "init.hpp"

namespace aie {

namespace detail {
inline float noisy(float value) {
  const unsigned noise = emulation::state().inv_noise;
  if (noise == 0 || !std::isfinite(value) || value == 0.0F) return value;
  int32 bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits += static_cast<int32>(emulation::state().random() % (2 * noise + 1)) - static_cast<int32>(noise);
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

// Nearest, ties to even ("Floating-point Conversion": conv_even). Out of range: undefined.
template <Integer T>
T to_integer(float value, int shift) {
  const double scaled = std::nearbyint(std::ldexp(static_cast<double>(value), shift));
  constexpr auto low = static_cast<double>(std::numeric_limits<T>::min());
  constexpr auto high = static_cast<double>(std::numeric_limits<T>::max());
  return scaled >= low && scaled <= high ? static_cast<T>(scaled) : emulation::poisoned<T>();
}
template <unsigned N>
void count_float() {  // emulated, element by element on AIE, by vector code on AIE-ML; the order of magnitude only
  emulation::count(&emulation::operation_counts::scalar, N);
}
}  // namespace detail

inline float inv(float value) {
  emulation::count(&emulation::operation_counts::scalar);
  return detail::noisy(1.0F / value);
}
inline float invsqrt(float value) {
  emulation::count(&emulation::operation_counts::scalar);
  return detail::noisy(1.0F / std::sqrt(value));
}
template <unsigned N>
vector<float, N> inv(const vector<float, N>& v) {
  vector<float, N> result(detail::unset);
  for (unsigned i = 0; i < N; ++i) result.lanes[i] = inv(v.lanes[i]);
  return result;
}
template <unsigned N>
vector<float, N> invsqrt(const vector<float, N>& v) {
  vector<float, N> result(detail::unset);
  for (unsigned i = 0; i < N; ++i) result.lanes[i] = invsqrt(v.lanes[i]);
  return result;
}

// v * 2^-shift
template <class Result = float, detail::Integer T, unsigned N>
  requires(std::is_same_v<Result, float>)
vector<float, N> to_float(const vector<T, N>& v, int shift = 0) {
  detail::count_float<N>();
  vector<float, N> result(detail::unset);
  for (unsigned i = 0; i < N; ++i) result.lanes[i] = std::ldexp(static_cast<float>(v.lanes[i]), -shift);
  return result;
}
// v * 2^shift
template <detail::Integer Result = int32, unsigned N>
vector<Result, N> to_fixed(const vector<float, N>& v, int shift = 0) {
  detail::count_float<N>();
  vector<Result, N> result(detail::unset);
  for (unsigned i = 0; i < N; ++i) result.lanes[i] = detail::to_integer<Result>(v.lanes[i], shift);
  return result;
}
inline float to_float(int32 value, int shift = 0) {
  emulation::count(&emulation::operation_counts::scalar);
  return std::ldexp(static_cast<float>(value), -shift);
}
template <detail::Integer Result = int32>
Result to_fixed(float value, int shift = 0) {
  emulation::count(&emulation::operation_counts::scalar);
  return detail::to_integer<Result>(value, shift);
}

}  // namespace aie
