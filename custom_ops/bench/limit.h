// The least that a kernel has to do: read all of x, write all of y.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>
#endif

namespace hccs::bench {

// The bytes of y are a multiple of those of x.
using Limit = void (*)(const void* x, void* y, size_t x_bytes, size_t y_bytes);

// Pieces stay in the first-level cache, so that x is read once from further away.
inline void limit_plain(const void* x, void* y, size_t x_bytes, size_t y_bytes) {
  constexpr size_t kPiece = 2048;
  const char* from = static_cast<const char*>(x);
  char* to = static_cast<char*>(y);
  for (size_t i = 0; i < x_bytes; i += kPiece) {
    const size_t count = x_bytes - i < kPiece ? x_bytes - i : kPiece;
    for (size_t part = 0; part < y_bytes / x_bytes; ++part, to += count) memcpy(to, from + i, count);
  }
}

#if defined(__x86_64__) && defined(__GNUC__)

__attribute__((target("avx2"))) inline void limit_avx2(const void* x, void* y, size_t x_bytes, size_t y_bytes) {
  const char* from = static_cast<const char*>(x);
  char* to = static_cast<char*>(y);
  const bool twice = y_bytes != x_bytes;
  for (size_t i = 0; i + 32 <= x_bytes; i += 32) {
    const __m256i v = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + i));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v);
    if (twice) _mm256_storeu_si256(reinterpret_cast<__m256i*>(to += 32), v);
    to += 32;
  }
}

__attribute__((target("avx512f"))) inline void limit_avx512(const void* x, void* y, size_t x_bytes, size_t y_bytes) {
  const char* from = static_cast<const char*>(x);
  char* to = static_cast<char*>(y);
  const bool twice = y_bytes != x_bytes;
  for (size_t i = 0; i + 64 <= x_bytes; i += 64) {
    const __m512i v = _mm512_loadu_si512(from + i);
    _mm512_storeu_si512(to, v);
    if (twice) _mm512_storeu_si512(to += 64, v);
    to += 64;
  }
}

inline Limit limit_of(const char* kernel) {
  if (strcmp(kernel, "avx512") == 0) return limit_avx512;
  if (strcmp(kernel, "avx2") == 0) return limit_avx2;
  return limit_plain;
}

#else

inline Limit limit_of(const char*) {
  return limit_plain;
}

#endif

}  // namespace hccs::bench
