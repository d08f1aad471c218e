// What a kernel must never do ends in an emulation::error.
#pragma once

#include <cstdarg>
#include <cstdio>
#include <exception>

namespace emulation {

class error : public std::exception {
 public:
  explicit error(const char* text) noexcept { std::snprintf(text_, sizeof text_, "%s%s", prefix, text); }
  const char* what() const noexcept override { return text_; }
  const char* reason() const noexcept { return text_ + sizeof prefix - 1; }

 private:
  static constexpr char prefix[] = "AIE emulation: ";
  char text_[512];
};

// Formats as printf does and throws.
[[noreturn, gnu::format(printf, 1, 2)]] inline void fail(const char* format, ...) {
  char text[496];
  std::va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  throw error(text);
}

inline void require(bool holds, const char* what) {
  if (!holds) fail("%s", what);
}

}  // namespace emulation
