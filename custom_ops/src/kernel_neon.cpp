// NEON kernels for aarch64, with the same lanes as AVX2 (see LaneForm) in vectors of 16 codes or 4 floats. The last
// vector of a row overlaps the one before it; what overlaps is left out of the sums and computed twice otherwise. It is
// loaded before anything is written, so that rows can be done in place.
#include "kernel_neon.h"

#include <arm_neon.h>

#include "cpu.h"
#include "reciprocal.h"

namespace hccs {
namespace {

constexpr size_t kWidth = 16;  // codes in a vector

alignas(16) const uint8_t kLastLanes[32] = {0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,
                                            0,   0,   0,   0,   0,   255, 255, 255, 255, 255, 255,
                                            255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
inline uint8x16_t last_lanes(size_t count) {
  return vld1q_u8(kLastLanes + count);
}

// Gap codes

// A gap code is 0..127; masked positions have 255.
template <bool kMasked>
struct GapCodes {
  uint8x16_t Dmax, maximum;

  uint8x16_t operator()(int8x16_t x) const {
    const uint8x16_t code = vminq_u8(vsubq_u8(maximum, vreinterpretq_u8_s8(x)), Dmax);
    return kMasked ? vorrq_u8(code, vceqq_s8(x, vdupq_n_s8(kMaskCode))) : code;
  }
};

constexpr uint8_t kLastGap = 127;

// Sums of gap codes of up to 128 vectors: 128 * 2 * 255 < 2^16.
template <bool kMasked>
class CodeSum {
 public:
  static constexpr size_t kMost = 128;

  void add(uint8x16_t code) {
    codes_ = vpadalq_u8(codes_, code);
    if (kMasked) hidden_ = vsubq_u8(hidden_, vcgtq_u8(code, vdupq_n_u8(kLastGap)));
  }

  // Gaps of masked positions count as `mask_gap` each.
  void add_to(GapSum* sum, uint32_t mask_gap) const {
    const uint64_t hidden = kMasked ? vaddlvq_u8(hidden_) : 0;
    sum->gaps += vaddlvq_u16(codes_) - hidden * (255 - mask_gap);
    sum->hidden += hidden;
  }

 private:
  uint16x8_t codes_ = vdupq_n_u16(0);
  uint8x16_t hidden_ = vdupq_n_u8(0);
};

// From gap codes to probabilities

struct Scores {
  uint16x8_t B, S;

  explicit Scores(const LaneForm& lanes)
      : B(vdupq_n_u16(static_cast<uint16_t>(lanes.B))), S(vdupq_n_u16(static_cast<uint16_t>(lanes.S))) {}

  uint16x8_t operator()(uint16x8_t gap) const { return vmlsq_u16(B, gap, S); }
};

// Upper halves of the 32-bit products.
inline uint16x8_t high_half(uint16x8_t a, uint16x8_t b) {
  const uint32x4_t low = vmull_u16(vget_low_u16(a), vget_low_u16(b)), high = vmull_high_u16(a, b);
  return vuzp2q_u16(vreinterpretq_u16_u32(low), vreinterpretq_u16_u32(high));
}

inline uint16x8_t at_most(uint16x8_t value, uint16_t cap) {
  return vminq_u16(value, vdupq_n_u16(cap));
}

// What depends on the row sum, for norm.
struct NormRow {
  uint16x8_t rho;
  int32_t shift;

  NormRow(uint64_t Z, int32_t base) {
    const uint32_t exponent = floor_log2(Z);
    rho = vdupq_n_u16(static_cast<uint16_t>(rho_norm(Z, exponent)));
    shift = static_cast<int32_t>(exponent) - base;
  }

  // shift >= 1
  uint16x8_t narrow(uint16x8_t w) const {
    return vrshlq_u16(high_half(w, rho), vdupq_n_s16(static_cast<int16_t>(-shift)));
  }

  // shift < 1: all 32 bits of the product count.
  uint16x8_t wide(uint16x8_t w) const {
    const int32x4_t by = vdupq_n_s32(-(16 + shift));
    const uint32x4_t low = vrshlq_u32(vmull_u16(vget_low_u16(w), vget_low_u16(rho)), by);
    const uint32x4_t high = vrshlq_u32(vmull_high_u16(w, rho), by);
    return at_most(vcombine_u16(vqmovn_u32(low), vqmovn_u32(high)), 32767);
  }
};

struct Uint8Norm {
  using Result = uint8_t;
  explicit Uint8Norm(const Head& head) : lanes(lane_form_norm(head, 8)) {}
  template <class Put>
  void row(uint64_t Z, Reciprocal, Put put) const {
    const NormRow norm(Z, lanes.base);
    put([&](uint16x8_t w) { return norm.narrow(w); });
  }
  LaneForm lanes;
};

struct Uint8Ratio {
  using Result = uint8_t;
  explicit Uint8Ratio(const Head& head) : lanes(lane_form(head, 1, 0)) {}
  template <class Put>
  void row(uint64_t Z, Reciprocal reciprocal, Put put) const {
    const uint16x8_t rho = vdupq_n_u16(static_cast<uint16_t>(rho_uint8(reciprocal, Z)));
    put([&](uint16x8_t w) { return high_half(w, rho); });
  }
  LaneForm lanes;
};

struct Int16Norm {
  using Result = int16_t;
  explicit Int16Norm(const Head& head) : lanes(lane_form_norm(head, 15)) {}
  template <class Put>
  void row(uint64_t Z, Reciprocal, Put put) const {
    const NormRow norm(Z, lanes.base);
    if (norm.shift < 1) {
      put([&](uint16x8_t w) { return norm.wide(w); });
    } else {
      put([&](uint16x8_t w) { return norm.narrow(w); });
    }
  }
  LaneForm lanes;
};

struct Int16Ratio {
  using Result = int16_t;
  explicit Int16Ratio(const Head& head) : lanes(lane_form(head, 0, 0)) {}
  template <class Put>
  void row(uint64_t Z, Reciprocal reciprocal, Put put) const {
    const uint16x8_t rho = vdupq_n_u16(static_cast<uint16_t>(rho_int16(reciprocal, Z)));
    put([&](uint16x8_t w) { return at_most(vmulq_u16(w, rho), 32767); });
  }
  LaneForm lanes;
};

// Writes the probabilities of 16 gap codes; narrowing to uint8 saturates, which is the min(255).
template <bool kMasked, class Value>
inline void write(uint8_t* y, uint8x16_t codes, const Scores& scores, Value value) {
  const uint16x8_t low = value(scores(vmovl_u8(vget_low_u8(codes)))), high = value(scores(vmovl_high_u8(codes)));
  const uint8x16_t packed = vcombine_u8(vqmovn_u16(low), vqmovn_u16(high));
  vst1q_u8(y, kMasked ? vbicq_u8(packed, vcgtq_u8(codes, vdupq_n_u8(kLastGap))) : packed);
}

template <bool kMasked, class Value>
inline void write(int16_t* y, uint8x16_t codes, const Scores& scores, Value value) {
  const uint16x8_t low = vmovl_u8(vget_low_u8(codes)), high = vmovl_high_u8(codes), last_gap = vdupq_n_u16(kLastGap);
  uint16x8_t y0 = value(scores(low)), y1 = value(scores(high));
  if (kMasked) {
    y0 = vbicq_u16(y0, vcgtq_u16(low, last_gap));
    y1 = vbicq_u16(y1, vcgtq_u16(high, last_gap));
  }
  vst1q_s16(y, vreinterpretq_s16_u16(y0));
  vst1q_s16(y + kWidth / 2, vreinterpretq_s16_u16(y1));
}

// int8 rows

template <class Result>
inline void zero_row(Result* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = 0;
}

// Gap codes of a row with this maximum; false where the row is masked as a whole.
template <bool kMasked>
inline bool begin_row(int8x16_t maxima, const Head& head, GapCodes<kMasked>* codes, uint32_t* mask_gap) {
  const int maximum = vmaxvq_s8(maxima), gap = maximum - kMaskCode;
  codes->Dmax = vdupq_n_u8(static_cast<uint8_t>(head.Dmax));
  codes->maximum = vdupq_n_u8(static_cast<uint8_t>(maximum));
  *mask_gap = static_cast<uint32_t>(gap < head.Dmax ? gap : head.Dmax);
  return !kMasked || gap != 0;
}

inline uint64_t sum_of(const Head& head, size_t n, const GapSum& sum, uint32_t mask_gap) {
  return row_sum(head, n, static_cast<int>(mask_gap) + kMaskCode, sum);
}

// Rows of n >= 16 codes.
template <class Type, bool kMasked>
void long_rows(const int8_t* x, typename Type::Result* y, size_t rows, size_t n, const Head& head, const Form& form) {
  constexpr size_t kBlock = (CodeSum<kMasked>::kMost - 1) * kWidth;
  const Type type(head);
  const Scores scores(type.lanes);
  const size_t last = n - kWidth, body = (n - 1) / kWidth * kWidth;
  const uint8x16_t fresh = last_lanes(n - body);
  for (size_t j = 0; j < rows; ++j, x += n, y += n) {
    const int8x16_t end = vld1q_s8(x + last);
    int8x16_t maxima = end;
    for (size_t i = 0; i < body; i += kWidth) maxima = vmaxq_s8(maxima, vld1q_s8(x + i));

    GapCodes<kMasked> codes;
    uint32_t mask_gap;
    if (!begin_row(maxima, head, &codes, &mask_gap)) {
      zero_row(y, n);
      continue;
    }
    GapSum total{0, 0};
    for (size_t begin = 0; begin <= body; begin += kBlock) {
      const bool whole = body - begin >= kBlock;
      const size_t stop = whole ? begin + kBlock : body;
      CodeSum<kMasked> sum;
      for (size_t i = begin; i < stop; i += kWidth) sum.add(codes(vld1q_s8(x + i)));
      if (!whole) sum.add(vandq_u8(codes(end), fresh));
      sum.add_to(&total, mask_gap);
    }
    type.row(sum_of(head, n, total, mask_gap), form.reciprocal, [&](auto value) {
      for (size_t i = 0; i < body; i += kWidth) write<kMasked>(y + i, codes(vld1q_s8(x + i)), scores, value);
      write<kMasked>(y + last, codes(end), scores, value);
    });
  }
}

// Rows of kPiece <= n < 2*kPiece codes with kPiece up to 8: two overlapping pieces make up one vector.
template <class Type, bool kMasked, size_t kPiece>
void short_rows(const int8_t* x, typename Type::Result* y, size_t rows, size_t n, const Head& head, const Form& form) {
  using Result = typename Type::Result;
  const Type type(head);
  const Scores scores(type.lanes);
  uint8_t fresh_lanes[kWidth] = {};
  for (size_t i = 0; i < kPiece; ++i) {
    fresh_lanes[i] = 255;
    fresh_lanes[kPiece + i] = i + n >= 2 * kPiece ? 255 : 0;
  }
  const uint8x16_t fresh = vld1q_u8(fresh_lanes);
  const size_t last = n - kPiece;
  for (size_t j = 0; j < rows; ++j, x += n, y += n) {
    int8_t both[kWidth];
    for (size_t i = 0; i < kWidth; i += 2 * kPiece) {
      memcpy(both + i, x, kPiece);
      memcpy(both + i + kPiece, x + last, kPiece);
    }
    const int8x16_t v = vld1q_s8(both);

    GapCodes<kMasked> codes;
    uint32_t mask_gap;
    if (!begin_row(v, head, &codes, &mask_gap)) {
      zero_row(y, n);
      continue;
    }
    const uint8x16_t row_codes = codes(v);
    CodeSum<kMasked> sum;
    sum.add(vandq_u8(row_codes, fresh));
    GapSum total{0, 0};
    sum.add_to(&total, mask_gap);
    Result values[kWidth];
    type.row(sum_of(head, n, total, mask_gap), form.reciprocal,
             [&](auto value) { write<kMasked>(values, row_codes, scores, value); });
    memcpy(y, values, kPiece * sizeof(Result));
    memcpy(y + last, values + kPiece, kPiece * sizeof(Result));
  }
}

template <class Type, bool kMasked>
void rows_of_type(const int8_t* x, typename Type::Result* y, size_t rows, size_t n, const Head& head,
                  const Form& form) {
  if (n >= 16) return long_rows<Type, kMasked>(x, y, rows, n, head, form);
  if (n >= 8) return short_rows<Type, kMasked, 8>(x, y, rows, n, head, form);
  if (n >= 4) return short_rows<Type, kMasked, 4>(x, y, rows, n, head, form);
  if (n >= 2) return short_rows<Type, kMasked, 2>(x, y, rows, n, head, form);
  short_rows<Type, kMasked, 1>(x, y, rows, n, head, form);
}

template <class Norm, class Ratio>
void integer_rows(const int8_t* x, typename Norm::Result* y, size_t rows, size_t n, const Head& head,
                  const Form& form) {
  if (form.reciprocal == Reciprocal::kNorm) {
    form.masked ? rows_of_type<Norm, true>(x, y, rows, n, head, form)
                : rows_of_type<Norm, false>(x, y, rows, n, head, form);
  } else {
    form.masked ? rows_of_type<Ratio, true>(x, y, rows, n, head, form)
                : rows_of_type<Ratio, false>(x, y, rows, n, head, form);
  }
}

// float rows

constexpr size_t kFloats = 4;         // in a vector
constexpr size_t kFloatBlock = 2048;  // 2048/4 * 32767 < 2^24: sums of scores stay exact in float lanes

struct FloatScores {
  float32x4_t maximum, scale, B, S, Dmax, limit;

  FloatScores(const Head& head, const Form& form)
      : maximum(vdupq_n_f32(0)),
        scale(vdupq_n_f32(head.scale)),
        B(vdupq_n_f32(static_cast<float>(head.B))),
        S(vdupq_n_f32(static_cast<float>(head.S))),
        Dmax(vdupq_n_f32(static_cast<float>(head.Dmax))),
        limit(vdupq_n_f32(form.masked ? form.mask_gap : __builtin_inff())) {}

  // NaN comes out as NaN: minimum, rounding and multiplication all hand it on.
  float32x4_t operator()(float32x4_t x) const {
    const float32x4_t delta = vsubq_f32(maximum, x);
    const float32x4_t code = vrndnq_f32(vminq_f32(Dmax, vdivq_f32(delta, scale)));
    const float32x4_t score = vfmsq_f32(B, S, code);
    return vreinterpretq_f32_u32(vbicq_u32(vreinterpretq_u32_f32(score), vcgtq_f32(delta, limit)));
  }
};

inline double sum_of_floats(float32x4_t v) {
  return vaddvq_f64(vaddq_f64(vcvt_f64_f32(vget_low_f32(v)), vcvt_high_f64_f32(v)));
}

bool has_nan(const float* x, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    if (x[i] != x[i]) return true;
  }
  return false;
}

void fill(float* y, size_t n, float value) {
  for (size_t i = 0; i < n; ++i) y[i] = value;
}

// One row of n >= 4; scores are kept in y between the passes.
void float_row(const float* x, float* y, size_t n, FloatScores& scores) {
  const size_t last = n - kFloats, body = (n - 1) / kFloats * kFloats;
  const float32x4_t end = vld1q_f32(x + last);
  float32x4_t maxima = end;
  for (size_t i = 0; i < body; i += kFloats) maxima = vmaxq_f32(maxima, vld1q_f32(x + i));
  const float maximum = vmaxvq_f32(maxima);
  if (maximum == -__builtin_inff()) return fill(y, n, has_nan(x, n) ? __builtin_nanf("") : 0.0f);
  scores.maximum = vdupq_n_f32(maximum);

  const float32x4_t end_score = scores(end);
  double Z = 0;
  for (size_t i = body - last; i < kFloats; ++i) {  // lanes that no other vector has
    float lanes[kFloats];
    vst1q_f32(lanes, end_score);
    Z += static_cast<double>(lanes[i]);
  }
  for (size_t begin = 0; begin < body; begin += kFloatBlock) {
    const size_t stop = body - begin < kFloatBlock ? body : begin + kFloatBlock;
    float32x4_t sum = vdupq_n_f32(0);
    for (size_t i = begin; i < stop; i += kFloats) {
      const float32x4_t score = scores(vld1q_f32(x + i));
      vst1q_f32(y + i, score);
      sum = vaddq_f32(sum, score);
    }
    Z += sum_of_floats(sum);
  }
  if (Z != Z) return fill(y, n, __builtin_nanf(""));
  const float32x4_t reciprocal = vdupq_n_f32(1.0f / static_cast<float>(Z));
  for (size_t i = 0; i < body; i += kFloats) vst1q_f32(y + i, vmulq_f32(vld1q_f32(y + i), reciprocal));
  vst1q_f32(y + last, vmulq_f32(end_score, reciprocal));
}

void float_rows(const float* x, float* y, size_t rows, size_t n, const Head& head, const Form& form) {
  FloatScores scores(head, form);
  for (size_t j = 0; j < rows; ++j, x += n, y += n) {
    if (n >= kFloats) {
      float_row(x, y, n, scores);
      continue;
    }
    // A shorter row is filled up with its first logit, whose scores are then left out of the sum.
    float lanes[kFloats] = {x[0], x[0], x[0], x[0]};
    memcpy(lanes, x, n * sizeof(float));
    const float maximum = vmaxvq_f32(vld1q_f32(lanes));
    if (maximum == -__builtin_inff()) {
      fill(y, n, 0.0f);
      continue;
    }
    scores.maximum = vdupq_n_f32(maximum);
    vst1q_f32(lanes, scores(vld1q_f32(lanes)));
    double Z = 0;
    for (size_t i = 0; i < n; ++i) Z += static_cast<double>(lanes[i]);
    const float reciprocal = 1.0f / static_cast<float>(Z);
    for (size_t i = 0; i < n; ++i) y[i] = lanes[i] * reciprocal;
  }
}

}  // namespace

const Kernels kNeonKernels{"neon", cpu_has_neon, integer_rows<Uint8Norm, Uint8Ratio>,
                           integer_rows<Int16Norm, Int16Ratio>, float_rows};

}  // namespace hccs
