// The ends of connections: what a port of a kernel, a graph or a PLIO stands for.
#pragma once

#include <cstddef>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "../emulation/error.hpp"

namespace adf {

enum class direction { in, out, inout };

struct placement {
  int column, row, index;
  bool is_address = false;  // `index` counts bytes, not banks or channels
};

namespace detail {

// Bytes on their way from a producer to one consumer, first in, first out, without a limit.
class byte_queue {
 public:
  std::size_t size() const { return bytes_.size() - head_; }
  void push(const void* from, std::size_t n) {
    const auto* at = static_cast<const unsigned char*>(from);
    bytes_.insert(bytes_.end(), at, at + n);
  }
  void pop(void* to, std::size_t n) {
    std::memcpy(to, bytes_.data() + head_, n);
    head_ += n;
    if (head_ == bytes_.size()) clear();
  }
  void clear() {
    bytes_.clear();
    head_ = 0;
  }
  const unsigned char* data() const { return bytes_.data() + head_; }

 private:
  std::vector<unsigned char> bytes_;
  std::size_t head_ = 0;
};

struct element_type {
  char kind = 0;  // 'i', 'u', 'f'; 0 unknown
  unsigned bytes = 0;
  bool operator==(const element_type&) const = default;
};
template <class T>
constexpr element_type element_type_of() {
  static_assert(std::is_arithmetic_v<T>, "only arithmetic element types are emulated");
  return {std::is_floating_point_v<T> ? 'f' : std::is_signed_v<T> ? 'i' : 'u', sizeof(T)};
}

enum class port_kind { relay, buffer, stream, parameter, plio };

struct endpoint {
  port_kind kind = port_kind::relay;  // a relay is a port of a graph: it only hands on
  element_type type;
  std::size_t samples = 0;           // of a buffer, a run of the kernel
  std::vector<unsigned> dimensions;  // as the graph sets them
  std::vector<placement> places;     // of a buffer, likewise
  std::shared_ptr<endpoint> driver;  // what feeds this end
  std::vector<endpoint*> consumers;  // of a producer; found when the graph is initialised
  byte_queue queue;                  // of a consumer: what waits for it
  std::vector<unsigned char> parameter;
  bool is_parameter_set = false;
  bool is_async = false;

  std::size_t buffer_bytes() const {
    std::size_t count = samples;
    if (!dimensions.empty()) {
      count = 1;
      for (unsigned d : dimensions) count *= d;
    }
    if (count == 0) emulation::fail("a buffer port has no size: set adf::dimensions(port) or extents<>");
    if (samples != 0 && count != samples) {
      emulation::fail("dimensions (%zu samples) and the kernel's extents (%zu) differ", count, samples);
    }
    if (count * type.bytes % 4 != 0) {
      emulation::fail("a buffer of %zu bytes: they are moved four at a time", count * type.bytes);
    }
    return count * type.bytes;
  }
  void produce(const void* from, std::size_t n) {
    for (endpoint* consumer : consumers) consumer->queue.push(from, n);
  }
};

}  // namespace detail
}  // namespace adf
