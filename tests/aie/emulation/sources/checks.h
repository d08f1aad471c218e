// The least that a test program needs: named tests, checks that go on, and a failure's file and line.
#pragma once

#include <aie_api/aie.hpp>
#include <cstdio>
#include <cstring>
#include <initializer_list>
#include <vector>

namespace checks {

struct test {
  const char* name;
  void (*run)();
};
inline std::vector<test>& all() {
  static std::vector<test> tests;
  return tests;
}
inline int& failures() {
  static int count = 0;
  return count;
}
inline void report(bool holds, const char* what, const char* file, int line) {
  if (holds) return;
  ++failures();
  std::printf("%s:%d: %s\n", file, line, what);
}
struct registration {
  registration(const char* name, void (*run)()) { all().push_back({name, run}); }
};

// first, first + step, ...
template <class T, unsigned N>
aie::vector<T, N> ramp(int first = 0, int step = 1) {
  aie::vector<T, N> v;
  for (unsigned i = 0; i < N; ++i) v.lanes[i] = static_cast<T>(first + static_cast<int>(i) * step);
  return v;
}
// The values, over and over.
template <class T, unsigned N>
aie::vector<T, N> repeat(std::initializer_list<int> values) {
  aie::vector<T, N> v;
  for (unsigned i = 0; i < N; ++i) v.lanes[i] = static_cast<T>(values.begin()[i % values.size()]);
  return v;
}
template <class V>
bool equal(const V& a, const V& b) {
  return a.lanes == b.lanes;
}
// Every lane is what f says of its index.
template <class V, class F>
bool lanes_are(const V& v, F f) {
  for (unsigned i = 0; i < V::size(); ++i) {
    if (v.lanes[i] != static_cast<decltype(v.lanes[0] + 0)>(f(static_cast<int>(i)))) return false;
  }
  return true;
}
template <class F>
bool fails(F f) {
  try {
    f();
  } catch (const emulation::error&) {
    return true;
  }
  return false;
}

inline void set_modes(aie::rounding_mode rounding, aie::saturation_mode saturation) {
  aie::set_rounding(rounding);
  aie::set_saturation(saturation);
}

}  // namespace checks

#define TEST(name)                                                       \
  static void test_##name();                                             \
  static const checks::registration register_##name{#name, test_##name}; \
  static void test_##name()
#define CHECK(...) checks::report((__VA_ARGS__), #__VA_ARGS__, __FILE__, __LINE__)

// Runs the tests whose name holds the argument, or all; each starts from a fresh seed.
#define CHECKS_MAIN                                                            \
  int main(int count, char** arguments) {                                      \
    int run = 0;                                                               \
    for (const checks::test& t : checks::all()) {                              \
      if (count > 1 && std::strstr(t.name, arguments[1]) == nullptr) continue; \
      emulation::seed(1);                                                      \
      emulation::reset_counters();                                             \
      try {                                                                    \
        t.run();                                                               \
      } catch (const emulation::error& e) {                                    \
        checks::report(false, e.what(), t.name, 0);                            \
      }                                                                        \
      ++run;                                                                   \
    }                                                                          \
    std::printf("%d tests, %d failures\n", run, checks::failures());           \
    return checks::failures() == 0 && run > 0 ? 0 : 1;                         \
  }
