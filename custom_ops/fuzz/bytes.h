// What a fuzzer's bytes are taken for; zeros past their end.
#pragma once

#include <cstdint>
#include <cstring>

namespace hccs::fuzz {

class Bytes {
 public:
  Bytes(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  size_t left() const { return size_ - at_; }

  template <class Value>
  Value take() {
    Value value{};
    const size_t count = left() < sizeof value ? left() : sizeof value;
    if (count > 0) memcpy(&value, data_ + at_, count);
    at_ += count;
    return value;
  }

  // A number low..high, both included.
  int64_t take(int64_t low, int64_t high) {
    const uint64_t count = static_cast<uint64_t>(high - low) + 1;
    return low + static_cast<int64_t>((count <= 256 ? take<uint8_t>() : take<uint32_t>()) % count);
  }

 private:
  const uint8_t* data_;
  size_t size_, at_ = 0;
};

}  // namespace hccs::fuzz
