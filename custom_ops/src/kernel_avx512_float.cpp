// AVX-512 kernel for float rows of up to 224 logits: the scores of a row stay in registers, and rows end in a vector
// with masked lanes. Longer rows gain nothing from wider vectors; they, and rows that are not arithmetic or in doubt,
// go to the AVX2 kernel, where it is told how codes are found. Nothing here may run before cpu_has_avx512() said yes.
#include <immintrin.h>

#include "kernel_avx2.h"
#include "kernel_avx512.h"
#include "reciprocal.h"

namespace hccs {
namespace {

constexpr size_t kWidth = 16;  // floats in a vector
constexpr __mmask16 kAll = 0xffff;

inline float infinity() {
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(0x7f800000)));
}

struct Layout {
  explicit Layout(size_t n)
      : body((n - 1) / kWidth * kWidth), present(static_cast<__mmask16>(0xffffu >> (kWidth - (n - body)))) {}
  size_t body;
  __mmask16 present;
};

// Scores of the logits of a row.
template <bool kMasked>
struct Scores {
  __m512 maximum, inverse, limit, S, B_128, mask_gap;

  Scores(const Head& head, const Form& form)
      : maximum(_mm512_setzero_ps()),
        inverse(_mm512_set1_ps(1.0f / head.scale)),
        limit(_mm512_set1_ps(static_cast<float>(head.Dmax) * head.scale)),
        S(_mm512_set1_ps(static_cast<float>(head.S))),
        B_128(_mm512_set1_ps(static_cast<float>(head.B + 128 * head.S))),
        mask_gap(_mm512_set1_ps(form.mask_gap)) {}

  __mmask16 shown(__m512 delta, __mmask16 present) const {
    if (!kMasked) return present;
    return _mm512_mask_cmp_ps_mask(present, delta, mask_gap, _CMP_NGT_UQ);  // NaN is not hidden
  }

  // 128 + code + 1/2 in the fixed point of floats from 128 to 256, two units more than that. `doubt` keeps the least of
  // the lower halves, where the places are. Without the lower half it is 128 + code. Orders of operands let NaN
  // through.
  __m512 whole(__m512 delta, __m512i* doubt) const {
    const __m512 half = _mm512_castsi512_ps(_mm512_set1_epi32(0x43008002));
    const __m512i fixed = _mm512_castps_si512(_mm512_fmadd_ps(_mm512_min_ps(limit, delta), inverse, half));
    *doubt = _mm512_min_epu16(*doubt, fixed);
    return _mm512_castsi512_ps(_mm512_and_si512(fixed, _mm512_set1_epi32(-65536)));
  }

  __m512 multiplied(__m512 x, __mmask16 present, __m512i* doubt) const {
    const __m512 delta = _mm512_sub_ps(maximum, x);
    return _mm512_maskz_fnmadd_ps(shown(delta, present), S, whole(delta, doubt), B_128);
  }

  __m512 multiplied(__m512 x, __m512i* doubt) const {
    if (kMasked) return multiplied(x, kAll, doubt);
    return _mm512_fnmadd_ps(S, whole(_mm512_sub_ps(maximum, x), doubt), B_128);
  }

  static __m512i no_doubt() { return _mm512_set1_epi32(-1); }
  static bool in_doubt(__m512i doubt) {
    return _mm512_cmplt_epu32_mask(_mm512_slli_epi32(doubt, 16), _mm512_set1_epi32(4 << 16)) != 0;
  }
};

// As in the AVX2 kernel.
inline bool can_multiply(float scale) {
  return scale > 1e-30f && scale < 1e30f;
}

inline __m512 load(const float* x, __mmask16 present) {
  return _mm512_mask_loadu_ps(_mm512_set1_ps(-infinity()), present, x);
}

inline float row_maximum(const float* x, const Layout& layout) {
  __m512 a = load(x + layout.body, layout.present), b = a;
  size_t i = 0;
  for (; i + 2 * kWidth <= layout.body; i += 2 * kWidth) {
    a = _mm512_max_ps(a, _mm512_loadu_ps(x + i));
    b = _mm512_max_ps(b, _mm512_loadu_ps(x + i + kWidth));
  }
  if (i < layout.body) a = _mm512_max_ps(a, _mm512_loadu_ps(x + i));
  a = _mm512_max_ps(a, b);
  const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  __m128 c = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
  c = _mm_max_ps(c, _mm_movehl_ps(c, c));
  return _mm_cvtss_f32(_mm_max_ss(c, _mm_movehdup_ps(c)));
}

// A row of kVectors vectors. False, with nothing written, where it is in doubt or not arithmetic.
template <bool kMasked, size_t kVectors>
inline bool short_row(const float* x, float* y, const Layout& layout, const Scores<kMasked>& scores) {
  constexpr size_t kBody = kVectors - 1;
  __m512 s[kVectors];
  __m512i doubt = scores.no_doubt();
  for (size_t k = 0; k < kBody; ++k) s[k] = scores.multiplied(_mm512_loadu_ps(x + k * kWidth), &doubt);
  s[kBody] = scores.multiplied(load(x + layout.body, layout.present), layout.present, &doubt);
  __m512 sum = s[kBody], more = _mm512_setzero_ps();
  for (size_t k = 0; k + 1 < kBody; k += 2) {
    sum = _mm512_add_ps(sum, s[k]);
    more = _mm512_add_ps(more, s[k + 1]);
  }
  if (kBody % 2 == 1) more = _mm512_add_ps(more, s[kBody - 1]);
  const float Z = _mm512_reduce_add_ps(_mm512_add_ps(sum, more));  // below 2^24
  if (scores.in_doubt(doubt) || Z != Z) return false;
  const __m512 reciprocal = _mm512_set1_ps(1.0f / Z);
  for (size_t k = 0; k < kBody; ++k) _mm512_storeu_ps(y + k * kWidth, _mm512_mul_ps(s[k], reciprocal));
  _mm512_mask_storeu_ps(y + layout.body, layout.present, _mm512_mul_ps(s[kBody], reciprocal));
  return true;
}

// Rows until one cannot be done here; returns how many came before it. There are no calls, so that constants stay in
// registers. Maxima are found some rows ahead, so that scores do not wait for them.
template <bool kMasked, size_t kVectors>
size_t some_rows(const float* x, float* y, size_t rows, size_t n, Scores<kMasked> scores) {
  const Layout layout(n);
  constexpr size_t kAhead = 4;
  float ahead[kAhead];
  for (size_t j = 0; j < kAhead && j < rows; ++j) ahead[j] = row_maximum(x + j * n, layout);
  for (size_t j = 0; j < rows; ++j, x += n, y += n) {
    scores.maximum = _mm512_set1_ps(ahead[j % kAhead]);
    if (j + kAhead < rows) ahead[j % kAhead] = row_maximum(x + kAhead * n, layout);
    if (!short_row<kMasked, kVectors>(x, y, layout, scores)) return j;
  }
  return rows;
}

constexpr size_t kMostVectors = 14;

// Finds the function for a number of vectors.
template <bool kMasked, size_t kVectors = 1>
size_t some_rows_of(size_t vectors, const float* x, float* y, size_t rows, size_t n, const Scores<kMasked>& scores) {
  if constexpr (kVectors < kMostVectors) {
    if (vectors != kVectors) return some_rows_of<kMasked, kVectors + 1>(vectors, x, y, rows, n, scores);
  }
  return some_rows<kMasked, kVectors>(x, y, rows, n, scores);
}

template <bool kMasked>
void rows_masked(const float* x, float* y, size_t rows, size_t n, const Head& head, const Form& form) {
  const Scores<kMasked> scores(head, form);
  const size_t vectors = (n + kWidth - 1) / kWidth;
  for (size_t j = 0; j < rows; ++j) {
    j += some_rows_of(vectors, x + j * n, y + j * n, rows - j, n, scores);
    if (j < rows) avx2_float_rows(x + j * n, y + j * n, 1, n, head, form);
  }
}

}  // namespace

void avx512_float_rows(const float* x, float* y, size_t rows, size_t n, const Head& head, const Form& form) {
  if (n > kMostVectors * kWidth || !can_multiply(head.scale)) return avx2_float_rows(x, y, rows, n, head, form);
  form.masked ? rows_masked<true>(x, y, rows, n, head, form) : rows_masked<false>(x, y, rows, n, head, form);
}

}  // namespace hccs
