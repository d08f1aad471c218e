// Vectors from and to streams.
#pragma once

#include "../adf/stream.hpp"
#include "aie.hpp"

template <unsigned N, class T>
aie::vector<T, N> readincr_v(input_stream<T>* stream) {
  aie::vector<T, N> v(aie::detail::unset);
  for (T& lane : v.lanes) lane = stream->read();
  return v;
}
template <class T, unsigned N>
void writeincr(output_stream<T>* stream, const aie::vector<T, N>& v) {
  for (T lane : v.lanes) stream->write(lane);
}
