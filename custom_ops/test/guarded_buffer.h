// Memory in which every byte read past the end is a fault and every byte written before the start is noticed.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <cstring>

#if defined(__unix__) || defined(__APPLE__)
#include <sys/mman.h>
#include <unistd.h>
#define HCCS_GUARD_PAGES 1
#endif

namespace hccs::test {

// `bytes` bytes that end right before an inaccessible page (where there are pages to be had), behind a zone of pattern.
class GuardedBuffer {
 public:
  explicit GuardedBuffer(size_t bytes) : bytes_(bytes) {
#if defined(HCCS_GUARD_PAGES)
    page_ = static_cast<size_t>(sysconf(_SC_PAGESIZE));
    size_ = (bytes + kZone + page_ - 1) / page_ * page_ + page_;
    void* memory = mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED || mprotect(static_cast<char*>(memory) + size_ - page_, page_, PROT_NONE) != 0) abort();
    base_ = static_cast<uint8_t*>(memory);
    begin_ = base_ + size_ - page_ - bytes;
#else
    base_ = static_cast<uint8_t*>(malloc(bytes + 2 * kZone));
    begin_ = base_ + kZone;
    memset(begin_ + bytes_, kPattern, kZone);
#endif
    memset(begin_ - kZone, kPattern, kZone);
    memset(begin_, kPattern, bytes_);
  }
  GuardedBuffer(const GuardedBuffer&) = delete;
  GuardedBuffer& operator=(const GuardedBuffer&) = delete;
  ~GuardedBuffer() {
#if defined(HCCS_GUARD_PAGES)
    munmap(base_, size_);
#else
    free(base_);
#endif
  }

  uint8_t* begin() { return begin_; }
  size_t bytes() const { return bytes_; }

  bool intact() const {
    for (size_t i = 1; i <= kZone; ++i) {
      if (begin_[-static_cast<ptrdiff_t>(i)] != kPattern) return false;
#if !defined(HCCS_GUARD_PAGES)
      if (begin_[bytes_ + i - 1] != kPattern) return false;
#endif
    }
    return true;
  }

 private:
  static constexpr size_t kZone = 256;
  static constexpr uint8_t kPattern = 0xa5;
  uint8_t* base_;
  uint8_t* begin_;
  size_t bytes_, size_ = 0, page_ = 0;
};

}  // namespace hccs::test
