// The definition of HCCS (SPEC sections 2 and 3) as plainly as C++ can say it: one row, 64-bit integers, no care for
// speed. The tester holds it against vectors written by hccs_onnx/reference.py, and every kernel against both.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "hccs/kernel.h"

namespace hccs::test {

inline int64_t log2_floor(int64_t value) {
  int64_t exponent = 0;
  while (value >> (exponent + 1) != 0) ++exponent;
  return exponent;
}

inline int64_t score(const Head& head, int64_t gap) {
  return head.B - int64_t{head.S} * std::min<int64_t>(gap, head.Dmax);
}

// One probability from its score and the row sum.
inline int64_t probability(Reciprocal reciprocal, bool to_uint8, int64_t s, int64_t Z) {
  const int64_t k = log2_floor(Z), power = int64_t{1} << k, cap = to_uint8 ? 255 : 32767;
  if (reciprocal == Reciprocal::kNorm) {
    const int64_t rho = std::min<int64_t>(32767, (int64_t{1} << (15 + k)) / Z);
    if (to_uint8) return std::min(cap, (s * rho + (int64_t{1} << (k + 6))) >> (k + 7));
    return std::min(cap, (s * rho + (power >> 1)) >> k);
  }
  const int64_t divisor = reciprocal == Reciprocal::kDiv ? Z : power;
  if (to_uint8) return std::min(cap, (s * std::min<int64_t>(32767, (255 << 15) / divisor)) >> 15);
  return std::min(cap, s * (32767 / divisor));
}

template <class Result>
void define_row(const int8_t* x, Result* y, size_t n, const Head& head, const Form& form) {
  const int64_t maximum = *std::max_element(x, x + n);
  const auto hidden = [&](size_t i) { return form.masked && x[i] == -128; };
  int64_t Z = 0;
  for (size_t i = 0; i < n; ++i) Z += hidden(i) ? 0 : score(head, maximum - x[i]);
  for (size_t i = 0; i < n; ++i) {
    const int64_t value =
        hidden(i) ? 0 : probability(form.reciprocal, sizeof(Result) == 1, score(head, maximum - x[i]), Z);
    y[i] = static_cast<Result>(value);
  }
}

inline void define_row(const float* x, float* y, size_t n, const Head& head, const Form& form) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const bool has_nan = std::any_of(x, x + n, [](float v) { return std::isnan(v); });
  const float maximum = has_nan ? NAN : *std::max_element(x, x + n);
  if (!(maximum < kInfinity) || maximum == -kInfinity) {
    std::fill(y, y + n, maximum == -kInfinity ? 0.0f : NAN);
    return;
  }
  std::vector<int64_t> s(n);
  int64_t Z = 0;
  for (size_t i = 0; i < n; ++i) {
    const float delta = maximum - x[i];
    const float gap = delta / head.scale;
    const float code = std::min(std::nearbyint(gap), static_cast<float>(head.Dmax));
    s[i] = form.masked && delta > form.mask_gap ? 0 : score(head, static_cast<int64_t>(code));
    Z += s[i];
  }
  const float reciprocal = 1.0f / static_cast<float>(Z);
  for (size_t i = 0; i < n; ++i) y[i] = static_cast<float>(s[i]) * reciprocal;
}

}  // namespace hccs::test
