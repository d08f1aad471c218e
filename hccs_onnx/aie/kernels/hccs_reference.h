// The operator in plain scalar code, row by row: what the fast kernel is compared with, and a kernel to start from.
#pragma once

#include "hccs_contract.h"

namespace hccs {

namespace reference {

// y = min((score * rho + half) >> shift, largest code)
struct Scaling {
  int64_t rho, half;
  int shift;
};

template <class Out, Reciprocal R>
Scaling scaling(int64_t sum) {
  constexpr bool is_uint8 = sizeof(Out) == 1;
  constexpr int64_t most = 32767;
  int k = 0;
  while (sum >> (k + 1) != 0) ++k;
  if constexpr (R == Reciprocal::norm) {
    const int64_t rho = (int64_t(1) << (15 + k)) / sum;
    const int shift = is_uint8 ? k + 7 : k;
    return {rho < most ? rho : most, (int64_t(1) << shift) >> 1, shift};
  } else {
    const int64_t divisor = R == Reciprocal::div ? sum : int64_t(1) << k;
    const int64_t rho = (is_uint8 ? int64_t(255) << 15 : most) / divisor;
    return {rho < most ? rho : most, 0, is_uint8 ? 15 : 0};
  }
}

template <class Out, Reciprocal R, bool Masked, unsigned N>
void row(const int8* x, Out* y, const Head& head) {
  int32 maximum = mask_code;
  for (unsigned i = 0; i < N; ++i) maximum = x[i] > maximum ? x[i] : maximum;
  const auto score = [&](int32 code) -> int64_t {
    if (Masked && code == mask_code) return 0;
    const int32 gap = maximum - code;
    return head.B - head.S * (gap < head.Dmax ? gap : head.Dmax);
  };
  int64_t sum = 0;
  for (unsigned i = 0; i < N; ++i) sum += score(x[i]);
  const Scaling by = scaling<Out, R>(sum > 0 ? sum : 1);  // 0 where all is masked: then all scores are 0 too
  constexpr int64_t most = std::numeric_limits<Out>::max();
  for (unsigned i = 0; i < N; ++i) {
    const int64_t value = (score(x[i]) * by.rho + by.half) >> by.shift;
    y[i] = Out(value < most ? value : most);
  }
  for (unsigned i = N; i < padded_columns(N); ++i) y[i] = 0;
}

}  // namespace reference

// The contract is that of hccs::softmax, in hccs_kernel.h.
template <class Out, Reciprocal R, bool Masked, unsigned N, unsigned ROWS, unsigned HEADS>
void softmax_reference(const int8* x, Out* y, const int32* params) {
  constexpr unsigned columns = padded_columns(N);
  for (unsigned head = 0; head < HEADS; ++head) {
    const Head values(params + 4 * head);
    for (unsigned row = 0; row < ROWS; ++row, x += columns, y += columns) {
      reference::row<Out, R, Masked, N>(x, y, values);
    }
  }
}

}  // namespace hccs
