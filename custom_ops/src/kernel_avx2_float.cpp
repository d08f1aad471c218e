// AVX2 kernel for float rows. Compiled for AVX2 and FMA, so nothing here may run before cpu_has_avx2_fma() said yes.
//
// Codes: not the quotient gap/scale is needed but the whole number next to it. A multiplication with the reciprocal of
// the scale gives it in fixed point with 16 binary places, off by less than two units of the last place; so the whole
// part is right unless all places are next to zero. Rows where that happens are done again with true divisions.
//
// A block of rows goes through each pass before the next pass begins (see kernel_avx2_int8.cpp), its scores in a buffer
// of their own: aligned, and x is still there for rows that are done again in place.
#include <immintrin.h>

#include "kernel_avx2.h"
#include "reciprocal.h"

namespace hccs {
namespace {

constexpr size_t kFloats = 8;           // in a vector
constexpr size_t kGroup = 4 * kFloats;  // vectors worked on together

inline float infinity() {
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(0x7f800000)));
}
inline float quiet_nan() {
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(0x7fc00000)));
}

template <bool kMasked>
struct FloatScores {
  __m256 maximum, scale, inverse, limit, B, S, B_128, Dmax, mask_gap;

  FloatScores(const Head& head, const Form& form)
      : maximum(_mm256_setzero_ps()),
        scale(_mm256_set1_ps(head.scale)),
        inverse(_mm256_set1_ps(1.0f / head.scale)),
        limit(_mm256_set1_ps(static_cast<float>(head.Dmax) * head.scale)),
        B(_mm256_set1_ps(static_cast<float>(head.B))),
        S(_mm256_set1_ps(static_cast<float>(head.S))),
        B_128(_mm256_set1_ps(static_cast<float>(head.B + 128 * head.S))),
        Dmax(_mm256_set1_ps(static_cast<float>(head.Dmax))),
        mask_gap(_mm256_set1_ps(form.mask_gap)) {}

  // Whether the reciprocal and the largest gap are normal numbers with room to spare, so that the bound above holds.
  static bool can_multiply(float scale) { return scale > 1e-30f && scale < 1e30f; }

  __m256 shown(__m256 delta, __m256 score) const {
    return kMasked ? _mm256_andnot_ps(_mm256_cmp_ps(delta, mask_gap, _CMP_GT_OQ), score) : score;
  }

  // Orders of operands let NaN through.
  __m256 divided(__m256 x) const {
    const __m256 delta = _mm256_sub_ps(maximum, x);
    const __m256 gap = _mm256_min_ps(Dmax, _mm256_div_ps(delta, scale));
    const __m256 code = _mm256_round_ps(gap, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    return shown(delta, _mm256_fnmadd_ps(S, code, B));
  }

  // 128 + code + 1/2 in the fixed point of floats from 128 to 256, two units more than that. `doubt` keeps the least of
  // the lower halves, where the places are.
  __m256 multiplied(__m256 x, __m256i* doubt) const {
    const __m256 half = _mm256_castsi256_ps(_mm256_set1_epi32(0x43008002));
    const __m256 delta = _mm256_sub_ps(maximum, x);
    const __m256 fixed = _mm256_fmadd_ps(_mm256_min_ps(limit, delta), inverse, half);
    *doubt = _mm256_min_epu16(*doubt, _mm256_castps_si256(fixed));
    const __m256 whole = _mm256_and_ps(fixed, _mm256_castsi256_ps(_mm256_set1_epi32(-65536)));
    return shown(delta, _mm256_fnmadd_ps(S, whole, B_128));
  }

  static __m256i no_doubt() { return _mm256_set1_epi32(-1); }
  static bool in_doubt(__m256i doubt) {
    const __m256i high = _mm256_slli_epi32(_mm256_min_epu16(doubt, _mm256_set1_epi32(4)), 16);
    return _mm256_movemask_epi8(_mm256_cmpeq_epi32(high, _mm256_set1_epi32(4 << 16))) != -1;
  }
};

inline double sum_of_floats(__m256 v) {
  const __m256d a =
      _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(v)), _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)));
  const __m128d b = _mm_add_pd(_mm256_castpd256_pd128(a), _mm256_extractf128_pd(a, 1));
  return _mm_cvtsd_f64(_mm_add_sd(b, _mm_unpackhi_pd(b, b)));
}

inline float maximum_of_floats(__m256 v) {
  __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  a = _mm_max_ps(a, _mm_movehl_ps(a, a));
  return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
}

// Lane masks for the first `count` of 8 floats.
alignas(32) const int32_t kFirstFloats[16] = {-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0};
inline __m256i first_floats(size_t count) {
  return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(kFirstFloats + (kFloats - count)));
}

HCCS_RARE bool has_nan(const float* x, size_t n) {
  for (size_t i = 0; i < n; ++i) {
    if (x[i] != x[i]) return true;
  }
  return false;
}

HCCS_RARE void fill(float* y, size_t n, float value) {
  for (size_t i = 0; i < n; ++i) y[i] = value;
}

// Rows that are not arithmetic: NaN or +inf somewhere, which shows in the sum, or -inf everywhere.
inline bool special_row(const float* x, float* y, size_t n, float maximum, double Z) {
  if (maximum == -infinity()) {
    fill(y, n, has_nan(x, n) ? quiet_nan() : 0.0f);
  } else if (Z != Z) {
    fill(y, n, quiet_nan());
  } else {
    return false;
  }
  return true;
}

// The vectors of a row of n >= 8 floats: whole ones, and one that ends with the row.
struct Layout {
  explicit Layout(size_t n)
      : body((n - 1) / kFloats * kFloats),
        last(n - kFloats),
        overlap(_mm256_castsi256_ps(first_floats(kFloats - (n - body)))) {}
  size_t body, last;
  __m256 overlap;
};

inline float row_maximum(const float* x, const Layout& layout) {
  const __m256 end = _mm256_loadu_ps(x + layout.last);
  __m256 m[4] = {end, end, end, end};
  size_t i = 0;
  for (; i + kGroup <= layout.body; i += kGroup) {
    for (size_t k = 0; k < 4; ++k) m[k] = _mm256_max_ps(m[k], _mm256_loadu_ps(x + i + k * kFloats));
  }
  for (; i < layout.body; i += kFloats) m[0] = _mm256_max_ps(m[0], _mm256_loadu_ps(x + i));
  return maximum_of_floats(_mm256_max_ps(_mm256_max_ps(m[0], m[1]), _mm256_max_ps(m[2], m[3])));
}

// A sum of scores is exact in float lanes for 512 vectors: 512 * 32767 < 2^24.
constexpr size_t kMostSum = 512 * kFloats;

// Writes the scores of a row, those of the last vector to `end`. Returns their sum.
template <bool kMasked>
HCCS_RARE double write_divided(const float* x, float* s, float* end, const Layout& layout,
                               const FloatScores<kMasked>& scores) {
  const __m256 last = scores.divided(_mm256_loadu_ps(x + layout.last));
  double Z = sum_of_floats(_mm256_andnot_ps(layout.overlap, last));
  for (size_t i = 0; i < layout.body;) {
    const size_t stop = layout.body - i < kMostSum ? layout.body : i + kMostSum;
    __m256 sum = _mm256_setzero_ps();
    for (; i < stop; i += kFloats) {
      const __m256 score = scores.divided(_mm256_loadu_ps(x + i));
      _mm256_storeu_ps(s + i, score);
      sum = _mm256_add_ps(sum, score);
    }
    Z += sum_of_floats(sum);
  }
  _mm256_storeu_ps(end, last);
  return Z;
}

// The same for rows of up to kMostSum floats, where x and s do not overlap; y, which is written to
// later, is fetched.
template <bool kMasked>
inline double write_multiplied(const float* x, const float* y, float* s, float* end, const Layout& layout,
                               const FloatScores<kMasked>& scores) {
  __m256i doubt = scores.no_doubt();
  const __m256 last = scores.multiplied(_mm256_loadu_ps(x + layout.last), &doubt);
  _mm256_storeu_ps(end, last);
  __m256 sum = _mm256_andnot_ps(layout.overlap, last), more = _mm256_setzero_ps();
  size_t i = 0;
  for (; i + kGroup <= layout.body; i += kGroup) {
    __m256 score[4];
    _mm_prefetch(reinterpret_cast<const char*>(y + i), _MM_HINT_T0);
    _mm_prefetch(reinterpret_cast<const char*>(y + i + kGroup / 2), _MM_HINT_T0);
    for (size_t k = 0; k < 4; ++k) score[k] = scores.multiplied(_mm256_loadu_ps(x + i + k * kFloats), &doubt);
    for (size_t k = 0; k < 4; ++k) _mm256_storeu_ps(s + i + k * kFloats, score[k]);
    sum = _mm256_add_ps(sum, _mm256_add_ps(score[0], score[1]));
    more = _mm256_add_ps(more, _mm256_add_ps(score[2], score[3]));
  }
  for (; i < layout.body; i += kFloats) {
    const __m256 score = scores.multiplied(_mm256_loadu_ps(x + i), &doubt);
    _mm256_storeu_ps(s + i, score);
    sum = _mm256_add_ps(sum, score);
  }
  if (scores.in_doubt(doubt)) return write_divided(x, s, end, layout, scores);
  return sum_of_floats(_mm256_add_ps(sum, more));
}

inline void write_scaled(float* y, const float* s, const float* end, const Layout& layout, double Z) {
  const __m256 reciprocal = _mm256_set1_ps(1.0f / static_cast<float>(Z));
  size_t i = 0;
  for (; i + kGroup <= layout.body; i += kGroup) {
    for (size_t k = i; k < i + kGroup; k += kFloats) {
      _mm256_storeu_ps(y + k, _mm256_mul_ps(_mm256_loadu_ps(s + k), reciprocal));
    }
  }
  for (; i < layout.body; i += kFloats) {
    _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_loadu_ps(s + i), reciprocal));
  }
  _mm256_storeu_ps(y + layout.last, _mm256_mul_ps(_mm256_loadu_ps(end), reciprocal));
}

constexpr size_t kBlockRows = 16;
constexpr size_t kBlockFloats = 2048;  // at most, unless it is a single row

// Rows of 8 <= n <= kMostSum.
template <bool kMasked>
void block_rows(const float* x, float* y, size_t rows, size_t n, const Head& head, const Form& form) {
  FloatScores<kMasked> scores(head, form);
  const bool multiply = scores.can_multiply(head.scale);
  const Layout layout(n);
  const size_t stride = layout.body + kFloats;
  const size_t fit = kBlockFloats / stride, most = fit < 1 ? 1 : fit < kBlockRows ? fit : kBlockRows;
  alignas(32) float buffer[kMostSum];
  while (rows > 0) {
    const size_t count = rows < most ? rows : most;
    float maximum[kBlockRows];
    double Z[kBlockRows];
    for (size_t j = 0; j < count; ++j) maximum[j] = row_maximum(x + j * n, layout);
    for (size_t j = 0; j < count; ++j) {
      scores.maximum = _mm256_set1_ps(maximum[j]);
      float *const s = buffer + j * stride, *const end = s + layout.body;
      Z[j] = multiply ? write_multiplied(x + j * n, y + j * n, s, end, layout, scores)
                      : write_divided(x + j * n, s, end, layout, scores);
    }
    for (size_t j = 0; j < count; ++j, x += n, y += n) {
      const float* const s = buffer + j * stride;
      if (!special_row(x, y, n, maximum[j], Z[j])) write_scaled(y, s, s + layout.body, layout, Z[j]);
    }
    rows -= count;
  }
}

// Longer rows, one by one; scores are kept in y.
template <bool kMasked>
void long_rows(const float* x, float* y, size_t rows, size_t n, const Head& head, const Form& form) {
  FloatScores<kMasked> scores(head, form);
  const Layout layout(n);
  for (; rows > 0; --rows, x += n, y += n) {
    const float maximum = row_maximum(x, layout);
    if (special_row(x, y, n, maximum, 0)) continue;
    scores.maximum = _mm256_set1_ps(maximum);
    float end[kFloats];
    const double Z = write_divided(x, y, end, layout, scores);
    if (!special_row(x, y, n, maximum, Z)) write_scaled(y, y, end, layout, Z);
  }
}

// Rows of n < 8: one vector, of which the lanes beyond the row are not touched in memory.
template <bool kMasked>
void short_rows(const float* x, float* y, size_t rows, size_t n, const Head& head, const Form& form) {
  FloatScores<kMasked> scores(head, form);
  const __m256i present = first_floats(n);
  const __m256 present_lanes = _mm256_castsi256_ps(present);
  const __m256 absent = _mm256_andnot_ps(present_lanes, _mm256_set1_ps(-infinity()));
  for (size_t j = 0; j < rows; ++j, x += n, y += n) {
    const __m256 v = _mm256_or_ps(_mm256_maskload_ps(x, present), absent);
    scores.maximum = _mm256_set1_ps(maximum_of_floats(v));
    const __m256 score = _mm256_and_ps(scores.divided(v), present_lanes);
    const double Z = sum_of_floats(score);
    if (special_row(x, y, n, _mm256_cvtss_f32(scores.maximum), Z)) continue;
    _mm256_maskstore_ps(y, present, _mm256_mul_ps(score, _mm256_set1_ps(1.0f / static_cast<float>(Z))));
  }
}

template <bool kMasked>
void rows_masked(const float* x, float* y, size_t rows, size_t n, const Head& head, const Form& form) {
  if (n < kFloats) return short_rows<kMasked>(x, y, rows, n, head, form);
  n <= kMostSum ? block_rows<kMasked>(x, y, rows, n, head, form) : long_rows<kMasked>(x, y, rows, n, head, form);
}

}  // namespace

void avx2_float_rows(const float* x, float* y, size_t rows, size_t n, const Head& head, const Form& form) {
  form.masked ? rows_masked<true>(x, y, rows, n, head, form) : rows_masked<false>(x, y, rows, n, head, form);
}

}  // namespace hccs
