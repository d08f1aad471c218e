// Plain C++17, written for the auto-vectoriser: short loops without branches over one row, 8- and 16-bit lanes, sums in
// blocks that cannot overflow their lanes.
#include "kernel_portable.h"

#include <cmath>

#include "reciprocal.h"

// The iterations of the next loop touch different elements, also where x and y are the same address.
#if defined(__clang__)
#define HCCS_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define HCCS_INDEPENDENT _Pragma("GCC ivdep")
#elif defined(_MSC_VER)
#define HCCS_INDEPENDENT __pragma(loop(ivdep))
#else
#define HCCS_INDEPENDENT
#endif

namespace hccs {
namespace {

// int8 rows

int8_t maximum_code(const int8_t* x, size_t n) {
  int8_t maximum = kMaskCode;
  for (size_t i = 0; i < n; ++i) maximum = x[i] > maximum ? x[i] : maximum;
  return maximum;
}

// Gap code of one logit. Differences of int8 fit uint8.
inline uint8_t gap_code(int8_t maximum, int8_t x, uint8_t Dmax) {
  const uint8_t gap = static_cast<uint8_t>(static_cast<uint8_t>(maximum) - static_cast<uint8_t>(x));
  return gap < Dmax ? gap : Dmax;
}

GapSum gap_sum(const int8_t* x, size_t n, int8_t maximum, uint8_t Dmax, bool masked) {
  constexpr size_t kBlock = 512;  // 512 * 127 < 2^16
  GapSum sum{0, 0};
  for (size_t begin = 0; begin < n; begin += kBlock) {
    const size_t end = n - begin < kBlock ? n : begin + kBlock;
    uint16_t gaps = 0;
    for (size_t i = begin; i < end; ++i) gaps = static_cast<uint16_t>(gaps + gap_code(maximum, x[i], Dmax));
    sum.gaps += gaps;
    if (!masked) continue;
    uint16_t hidden = 0;
    for (size_t i = begin; i < end; ++i) hidden = static_cast<uint16_t>(hidden + (x[i] == kMaskCode));
    sum.hidden += hidden;
  }
  return sum;
}

// Writes y[i] = probability(w) for lifted scores w (see LaneForm), 0 where masked.
template <class Output, class Probability>
inline void write_row(const int8_t* x, Output* y, size_t n, int8_t maximum, uint8_t Dmax, const LaneForm& lanes,
                      bool masked, Probability probability) {
  const uint16_t B = static_cast<uint16_t>(lanes.B), S = static_cast<uint16_t>(lanes.S);
  const int8_t lowest = masked ? kMaskCode + 1 : kMaskCode;
  HCCS_INDEPENDENT
  for (size_t i = 0; i < n; ++i) {
    const uint16_t w = static_cast<uint16_t>(B - S * gap_code(maximum, x[i], Dmax));
    const Output value = static_cast<Output>(probability(w));
    y[i] = x[i] < lowest ? Output{0} : value;
  }
}

template <uint16_t kCap>
inline uint16_t capped(uint16_t value) {
  return value < kCap ? value : kCap;
}

inline uint16_t high_half(uint16_t a, uint16_t b) {
  return static_cast<uint16_t>((static_cast<uint32_t>(a) * b) >> 16);
}

template <class Output>
constexpr uint16_t kCap = sizeof(Output) == 1 ? 255 : 32767;

// norm: a 16-bit multiplication by 2^(16-shift) is the rounding shift, and vectorises where shifts by a variable do
// not.
template <class Output, class Write>
inline void write_norm(uint64_t Z, const LaneForm& lanes, Write write) {
  const uint32_t exponent = floor_log2(Z);
  const uint16_t rho = static_cast<uint16_t>(rho_norm(Z, exponent));
  const int32_t shift = static_cast<int32_t>(exponent) - lanes.base;
  if (shift >= 1) {
    const uint16_t half = static_cast<uint16_t>(shift <= 16 ? 1 << (shift - 1) : 0);
    const uint16_t scale = static_cast<uint16_t>(shift <= 16 ? 1 << (16 - shift) : 0);
    write([=](uint16_t w) {
      return capped<kCap<Output>>(high_half(static_cast<uint16_t>(high_half(w, rho) + half), scale));
    });
  } else {  // int16 only: w*rho needs all its 32 bits, shifted by 15 or 16
    const uint32_t half = 1u << (15 + shift), total = static_cast<uint32_t>(16 + shift);
    write([=](uint16_t w) {
      const uint32_t value = (static_cast<uint32_t>(w) * rho + half) >> total;
      return static_cast<uint16_t>(value < kCap<Output> ? value : kCap<Output>);
    });
  }
}

template <class Write>
inline void write_ratio(uint8_t*, Reciprocal reciprocal, uint64_t Z, Write write) {
  const uint16_t rho = static_cast<uint16_t>(rho_uint8(reciprocal, Z));
  write([=](uint16_t w) { return capped<255>(high_half(w, rho)); });
}

template <class Write>
inline void write_ratio(int16_t*, Reciprocal reciprocal, uint64_t Z, Write write) {
  const uint16_t rho = static_cast<uint16_t>(rho_int16(reciprocal, Z));
  write([=](uint16_t w) { return capped<32767>(static_cast<uint16_t>(static_cast<uint32_t>(w) * rho)); });
}

template <class Output>
void integer_rows(const int8_t* x, Output* y, size_t rows, size_t n, const Head& head, const Form& form) {
  const bool norm = form.reciprocal == Reciprocal::kNorm;
  const LaneForm lanes =
      norm ? lane_form_norm(head, sizeof(Output) == 1 ? 8 : 15) : lane_form(head, sizeof(Output) == 1 ? 1 : 0, 0);
  const uint8_t Dmax = static_cast<uint8_t>(head.Dmax);
  for (size_t row = 0; row < rows; ++row, x += n, y += n) {
    const int8_t maximum = maximum_code(x, n);
    if (form.masked && maximum == kMaskCode) {
      for (size_t i = 0; i < n; ++i) y[i] = 0;
      continue;
    }
    const uint64_t Z = row_sum(head, n, maximum, gap_sum(x, n, maximum, Dmax, form.masked));
    const auto write = [=](auto probability) { write_row(x, y, n, maximum, Dmax, lanes, form.masked, probability); };
    if (norm) {
      write_norm<Output>(Z, lanes, write);
    } else {
      write_ratio(y, form.reciprocal, Z, write);
    }
  }
}

// float rows

constexpr float kInfinity = HUGE_VALF, kNan = NAN;

// Integers in the order of the floats that they stand for; the same function leads back. Unlike the maximum of floats,
// that of integers vectorises.
inline int32_t ordered(int32_t bits) {
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

inline int32_t bits_of(float value) {
  int32_t bits;
  memcpy(&bits, &value, sizeof bits);
  return bits;
}

// Maximum of a row; a NaN may or may not get lost, the sum finds it.
float maximum_logit(const float* x, size_t n) {
  int32_t maximum = ordered(bits_of(x[0]));
  for (size_t i = 0; i < n; ++i) {
    const int32_t value = ordered(bits_of(x[i]));
    maximum = value > maximum ? value : maximum;
  }
  maximum = ordered(maximum);
  float value;
  memcpy(&value, &maximum, sizeof value);
  return value;
}

struct FloatLane {
  float maximum, scale, B, S, Dmax, limit;

  // Score of one logit, an integer 0..32767; NaN for NaN and for +inf. The order of operands lets NaN through.
  float score(float x) const {
    constexpr float kRound = 12582912.0f;  // 1.5 * 2^23: added and taken away it rounds 0..127 half to even
    const float delta = maximum - x;
    const float gap = delta / scale;
    const float clipped = Dmax < gap ? Dmax : gap;
    const float code = (clipped + kRound) - kRound;
    const float score = B - S * code;
    return delta > limit ? 0.0f : score;
  }
};

// What one pass over a row of floats finds.
struct ScoreSum {
  uint64_t Z;
  bool invalid;  // a score is NaN
};

ScoreSum write_scores(const float* x, float* y, size_t n, const FloatLane lane) {
  constexpr size_t kBlock = 4096;  // 4096 * 32767 < 2^31
  ScoreSum sum{0, false};
  for (size_t begin = 0; begin < n; begin += kBlock) {
    const size_t end = n - begin < kBlock ? n : begin + kBlock;
    HCCS_INDEPENDENT
    for (size_t i = begin; i < end; ++i) y[i] = lane.score(x[i]);
    int32_t total = 0, invalid = 0;
    for (size_t i = begin; i < end; ++i) {
      const bool is_score = y[i] >= 0;
      total += static_cast<int32_t>(is_score ? y[i] : 0.0f);
      invalid |= is_score ? 0 : 1;
    }
    sum.Z += static_cast<uint64_t>(total);
    sum.invalid |= invalid != 0;
  }
  return sum;
}

bool has_nan(const float* x, size_t n) {
  bool found = false;
  for (size_t i = 0; i < n; ++i) found |= x[i] != x[i];
  return found;
}

void fill(float* y, size_t n, float value) {
  for (size_t i = 0; i < n; ++i) y[i] = value;
}

void float_rows(const float* x, float* y, size_t rows, size_t n, const Head& head, const Form& form) {
  FloatLane lane{0,
                 head.scale,
                 static_cast<float>(head.B),
                 static_cast<float>(head.S),
                 static_cast<float>(head.Dmax),
                 form.masked ? form.mask_gap : kInfinity};
  for (size_t row = 0; row < rows; ++row, x += n, y += n) {
    lane.maximum = maximum_logit(x, n);
    if (lane.maximum == -kInfinity) {
      fill(y, n, has_nan(x, n) ? kNan : 0.0f);
      continue;
    }
    const ScoreSum sum = write_scores(x, y, n, lane);
    if (sum.invalid) {
      fill(y, n, kNan);
      continue;
    }
    const float reciprocal = 1.0f / static_cast<float>(static_cast<int64_t>(sum.Z));
    for (size_t i = 0; i < n; ++i) y[i] *= reciprocal;
  }
}

bool runs_everywhere() {
  return true;
}

}  // namespace

const Kernels kPortableKernels{"portable", runs_everywhere, integer_rows<uint8_t>, integer_rows<int16_t>, float_rows};

}  // namespace hccs
