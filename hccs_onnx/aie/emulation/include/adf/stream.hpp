// Stream arguments of kernels. A kernel that reads more than was written stops with an error; the device would wait.
#pragma once

#include "../emulation/error.hpp"
#include "endpoint.hpp"

template <class T>
class input_stream {
 public:
  using value_type = T;
  explicit input_stream(adf::detail::endpoint& end) : end_(end) {}
  T read() {
    if (end_.queue.size() < sizeof(T)) emulation::fail("a kernel reads from an empty stream");
    T value;
    end_.queue.pop(&value, sizeof value);
    return value;
  }

 private:
  adf::detail::endpoint& end_;
};

template <class T>
class output_stream {
 public:
  using value_type = T;
  explicit output_stream(adf::detail::endpoint& end) : end_(end) {}
  void write(T value) { end_.produce(&value, sizeof value); }

 private:
  adf::detail::endpoint& end_;
};

template <class T>
T readincr(input_stream<T>* stream) {
  return stream->read();
}
template <class T>
void writeincr(output_stream<T>* stream, std::type_identity_t<T> value) {
  stream->write(value);
}

namespace adf {
using ::input_stream;
using ::output_stream;
}  // namespace adf
