// AVX-512 kernels for int8 rows, with VBMI and VNNI. Nothing here may run before cpu_has_avx512() said yes.
//
// Within a row a probability depends on the gap code alone, and there are at most 128 of those. So each row makes a
// table of all its probabilities, with 16-bit lanes (see LaneForm), and looks 64 codes up at once. Rows end in a vector
// with masked lanes.
//
// Masked keys at the end of a long row, where padding puts them, are left out before anything is computed.
//
// A row is a chain: its maximum, then its sum, then its table. So a block of rows goes through each pass before the
// next pass begins: the rows of a pass do not wait for each other, and they are in the first-level cache when they are
// needed again.
#include <immintrin.h>

#include "cpu.h"
#include "int8_forms.h"
#include "kernel_avx2.h"
#include "kernel_avx512.h"
#include "reciprocal.h"

namespace hccs {
namespace {

constexpr size_t kWidth = 64;  // codes in a vector

inline __m512i splat8(int value) {
  return _mm512_set1_epi8(static_cast<char>(value));
}
struct Lanes {
  using Vector = __m512i;
  static Vector splat16(uint32_t value) { return _mm512_set1_epi16(static_cast<int16_t>(value)); }
  static Vector splat32(uint32_t value) { return _mm512_set1_epi32(static_cast<int32_t>(value)); }
  static Vector low(Vector a, Vector b) { return _mm512_mullo_epi16(a, b); }
  static Vector high(Vector a, Vector b) { return _mm512_mulhi_epu16(a, b); }
  static Vector rounded_high(Vector a, Vector b) { return _mm512_mulhrs_epi16(a, b); }
  static Vector min16(Vector a, Vector b) { return _mm512_min_epu16(a, b); }
  static Vector halved(Vector a) { return _mm512_srli_epi16(a, 1); }
  // (a*low half + high half) >> shift with 32 bits, for both halves of a 32-bit lane of `factors`.
  static Vector products(Vector a, Vector factors, __m128i shift) {
    const Vector one = Lanes::splat16(1);
    const Vector lower = _mm512_madd_epi16(_mm512_unpacklo_epi16(a, one), factors);
    const Vector upper = _mm512_madd_epi16(_mm512_unpackhi_epi16(a, one), factors);
    return _mm512_packus_epi32(_mm512_srl_epi32(lower, shift), _mm512_srl_epi32(upper, shift));
  }
};

alignas(64) const uint8_t kIota[kWidth] = {0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                           16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31,
                                           32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47,
                                           48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};

// The vectors of a row: whole ones, then one of which `present` lanes belong to the row.
struct Layout {
  explicit Layout(size_t codes)
      : n(codes), body((n - 1) / kWidth * kWidth), present(~uint64_t{0} >> (kWidth - (n - body))) {}
  size_t n, body;
  __mmask64 present;
};

inline int8_t row_maximum(const int8_t* x, const Layout& layout) {
  __m512i v = _mm512_mask_loadu_epi8(splat8(-128), layout.present, x + layout.body);
  for (size_t i = 0; i < layout.body; i += kWidth) v = _mm512_max_epi8(v, _mm512_loadu_si512(x + i));
  const __m256i half = _mm256_max_epi8(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
  return maximum_of_lanes(half);
}

inline uint32_t sum_of_lanes(__m512i v) {
  const __m256i half = _mm256_add_epi32(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
  __m128i a = _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
  a = _mm_add_epi32(a, _mm_unpackhi_epi64(a, a));
  a = _mm_add_epi32(a, _mm_srli_epi64(a, 32));
  return static_cast<uint32_t>(_mm_cvtsi128_si32(a));
}

// Gap codes of one row.
struct GapCodes {
  __m512i maximum, Dmax;
  GapCodes(int8_t row_maximum, __m512i limit) : maximum(splat8(row_maximum)), Dmax(limit) {}
  __m512i operator()(__m512i x) const { return _mm512_min_epu8(_mm512_sub_epi8(maximum, x), Dmax); }
};

inline __mmask64 is_logit(__m512i x) {
  return _mm512_cmpneq_epi8_mask(x, splat8(kMaskCode));
}

// What is left of a row without the vectors of masked codes that it ends with; at least one vector or all of it.
inline size_t shown_length(const int8_t* x, size_t n) {
  while (n >= 2 * kWidth && is_logit(_mm512_loadu_si512(x + n - kWidth)) == 0) n -= kWidth;
  return n;
}

// Zeroes whole vectors: results of codes from `begin` to `end`, which are left out.
template <class Result>
inline void zero_vectors(Result* y, size_t begin, size_t end) {
  for (size_t i = begin * sizeof(Result); i < end * sizeof(Result); i += kWidth) {
    _mm512_storeu_si512(reinterpret_cast<uint8_t*>(y) + i, _mm512_setzero_si512());
  }
}

// In pieces of up to 4096 codes, whose gap codes sum up to less than 2^19: one sum of lanes then gives that sum and,
// above it, the number of logits.
template <bool kMasked>
inline GapSum row_gaps(const int8_t* x, const Layout& layout, int8_t maximum, __m512i Dmax) {
  constexpr size_t kPiece = 4096 - kWidth;
  constexpr int kSumBits = 19;
  const GapCodes gap(maximum, Dmax);
  const __m512i one = splat8(1), zero = _mm512_setzero_si512();
  const __m512i end = _mm512_maskz_loadu_epi8(layout.present, x + layout.body);
  __m512i gaps = _mm512_dpbusd_epi32(zero, _mm512_maskz_mov_epi8(layout.present, gap(end)), one), more = zero;
  __m512i logits = _mm512_maskz_mov_epi8(kMasked ? layout.present & is_logit(end) : 0, one);
  const auto add = [&](__m512i* sum, size_t i) {
    const __m512i v = _mm512_loadu_si512(x + i);
    *sum = _mm512_dpbusd_epi32(*sum, gap(v), one);
    if (kMasked) logits = _mm512_mask_add_epi8(logits, is_logit(v), logits, one);
  };
  uint64_t sum = 0, shown = 0;
  for (size_t i = 0;;) {
    const size_t stop = layout.body - i < kPiece ? layout.body : i + kPiece;
    for (; i + 2 * kWidth <= stop; i += 2 * kWidth) {
      add(&gaps, i);
      add(&more, i + kWidth);
    }
    if (i < stop) {
      add(&gaps, i);
      i += kWidth;
    }
    gaps = _mm512_add_epi32(gaps, more);
    if (!kMasked) {
      sum += sum_of_lanes(gaps);
    } else {
      const __m512i counts = _mm512_slli_epi32(_mm512_dpbusd_epi32(zero, logits, one), kSumBits);
      const uint32_t both = sum_of_lanes(_mm512_add_epi32(gaps, counts));
      sum += both % (1u << kSumBits);
      shown += both >> kSumBits;
    }
    if (i == layout.body) break;
    gaps = more = logits = zero;
  }
  return {sum, kMasked ? layout.n - shown : 0};
}

// Lifted scores of the gap codes 0..63, and 64..127 where kHalves is 2, in the order that packing to bytes undoes.
template <size_t kHalves>
struct Scores {
  explicit Scores(const LaneForm& lanes) {
    const __m512i B = Lanes::splat16(lanes.B), S = Lanes::splat16(lanes.S), zero = _mm512_setzero_si512();
    for (size_t i = 0; i < kHalves; ++i) {
      const __m512i code = _mm512_add_epi8(_mm512_load_si512(kIota), splat8(static_cast<int>(kWidth * i)));
      w[2 * i] = _mm512_sub_epi16(B, _mm512_mullo_epi16(_mm512_unpacklo_epi8(code, zero), S));
      w[2 * i + 1] = _mm512_sub_epi16(B, _mm512_mullo_epi16(_mm512_unpackhi_epi8(code, zero), S));
    }
  }
  __m512i w[2 * kHalves];
};

// A table of bytes, one for every gap code.
template <size_t kHalves>
struct Table {
  __m512i bytes[kHalves];
  __m512i operator()(__m512i code) const {
    if constexpr (kHalves == 1) {
      return _mm512_permutexvar_epi8(code, bytes[0]);
    } else {
      return _mm512_permutex2var_epi8(bytes[0], code, bytes[1]);
    }
  }
  __m512i operator()(__mmask64 shown, __m512i code) const {
    if constexpr (kHalves == 1) {
      return _mm512_maskz_permutexvar_epi8(shown, code, bytes[0]);
    } else {
      return _mm512_maskz_permutex2var_epi8(shown, bytes[0], code, bytes[1]);
    }
  }
};

// Every value is below 2^15, so the saturating pack is the min(255).
template <bool kMasked, size_t kHalves, class Value>
inline void write_row(const int8_t* x, uint8_t* y, const Layout& layout, const GapCodes& gap,
                      const Scores<kHalves>& scores, const Value& value) {
  Table<kHalves> table;
  for (size_t i = 0; i < kHalves; ++i) {
    table.bytes[i] = _mm512_packus_epi16(value(scores.w[2 * i]), value(scores.w[2 * i + 1]));
  }
  const auto probabilities = [&](__m512i v) { return kMasked ? table(is_logit(v), gap(v)) : table(gap(v)); };
  for (size_t i = 0; i < layout.body; i += kWidth) {
    _mm512_storeu_si512(y + i, probabilities(_mm512_loadu_si512(x + i)));
  }
  const __m512i end = _mm512_maskz_loadu_epi8(layout.present, x + layout.body);
  _mm512_mask_storeu_epi8(y + layout.body, layout.present, probabilities(end));
}

// Lower and upper bytes come from tables of their own.
template <bool kMasked, size_t kHalves, class Value>
inline void write_row(const int8_t* x, int16_t* y, const Layout& layout, const GapCodes& gap,
                      const Scores<kHalves>& scores, const Value& value) {
  Table<kHalves> low, high;
  const __m512i lower = Lanes::splat16(255);
  for (size_t i = 0; i < kHalves; ++i) {
    const __m512i even = value(scores.w[2 * i]), odd = value(scores.w[2 * i + 1]);
    low.bytes[i] = _mm512_packus_epi16(_mm512_and_si512(even, lower), _mm512_and_si512(odd, lower));
    high.bytes[i] = _mm512_packus_epi16(_mm512_srli_epi16(even, 8), _mm512_srli_epi16(odd, 8));
  }
  const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);  // so that unpacking keeps neighbours together
  const auto write = [&](size_t i, __m512i in_order, __mmask64 present) {
    const __m512i v = _mm512_permutexvar_epi64(order, in_order), code = gap(v);
    const __mmask64 shown = kMasked ? is_logit(v) : 0;
    const __m512i a = kMasked ? low(shown, code) : low(code), b = kMasked ? high(shown, code) : high(code);
    _mm512_mask_storeu_epi16(y + i, static_cast<__mmask32>(present), _mm512_unpacklo_epi8(a, b));
    _mm512_mask_storeu_epi16(y + i + kWidth / 2, static_cast<__mmask32>(present >> 32), _mm512_unpackhi_epi8(a, b));
  };
  for (size_t i = 0; i < layout.body; i += kWidth) write(i, _mm512_loadu_si512(x + i), ~__mmask64{0});
  write(layout.body, _mm512_maskz_loadu_epi8(layout.present, x + layout.body), layout.present);
}

// How rows are masked: not at all, anywhere, or anywhere and with what a long row ends with left out.
enum class Mask { kNone, kAnywhere, kTrimmed };

template <class Type, Mask kMask, size_t kHalves>
void block_rows(const int8_t* x, typename Type::Result* y, size_t rows, size_t n, const Head& head, const Form& form) {
  constexpr bool kMasked = kMask != Mask::kNone, kTrims = kMask == Mask::kTrimmed;
  const Layout layout(n);
  const LaneForm lanes = Type::lanes(head);
  const Scores<kHalves> scores(lanes);
  const __m512i Dmax = splat8(head.Dmax);
  const size_t most = rows_of_block(n);
  int8_t maximum[kBlockRows];
  uint64_t Z[kBlockRows];
  typename Type::Row row[kBlockRows];
  size_t length[kBlockRows];
  for (uint64_t& any : Z) any = 1;
  const auto shown = [&](size_t j) { return kTrims ? Layout(length[j]) : layout; };
  while (rows > 0) {
    const size_t count = rows < most ? rows : most;
    for (size_t j = 0; j < count; ++j) {
      length[j] = kTrims ? shown_length(x + j * n, n) : n;
      maximum[j] = row_maximum(x + j * n, shown(j));
    }
    for (size_t j = 0; j < count; ++j) {
      const GapSum gaps = row_gaps<kMasked>(x + j * n, shown(j), maximum[j], Dmax);
      const uint64_t sum = row_sum(head, kTrims ? length[j] : n, maximum[j], gaps);
      Z[j] = kMasked && sum == 0 ? 1 : sum;  // all hidden
    }
    Type::make_rows(lanes, Z, count, n, form.reciprocal, row);
    for (size_t j = 0; j < count; ++j) {
      with_value<Type>(row[j], [&](const auto& value) {
        write_row<kMasked>(x + j * n, y + j * n, shown(j), GapCodes(maximum[j], Dmax), scores, value);
      });
      if (kTrims) zero_vectors(y + j * n, length[j], n);
    }
    x += count * n;
    y += count * n;
    rows -= count;
  }
}

// Up to here a row's own arithmetic costs less than a table, and from here on leaving out masked ends pays.
constexpr size_t kShortUint8 = 64, kShortInt16 = 192, kLong = 256;

template <class Type, size_t kHalves>
void rows_of_table(const int8_t* x, typename Type::Result* y, size_t rows, size_t n, const Head& head,
                   const Form& form) {
  if (!form.masked) return block_rows<Type, Mask::kNone, kHalves>(x, y, rows, n, head, form);
  n < kLong ? block_rows<Type, Mask::kAnywhere, kHalves>(x, y, rows, n, head, form)
            : block_rows<Type, Mask::kTrimmed, kHalves>(x, y, rows, n, head, form);
}

template <class Type>
void rows_of_type(const int8_t* x, typename Type::Result* y, size_t rows, size_t n, const Head& head,
                  const Form& form) {
  head.Dmax < static_cast<int>(kWidth) ? rows_of_table<Type, 1>(x, y, rows, n, head, form)
                                       : rows_of_table<Type, 2>(x, y, rows, n, head, form);
}

void int8_to_uint8(const int8_t* x, uint8_t* y, size_t rows, size_t n, const Head& head, const Form& form) {
  if (n <= kShortUint8) return kAvx2Kernels.int8_to_uint8(x, y, rows, n, head, form);
  form.reciprocal == Reciprocal::kNorm ? rows_of_type<Uint8Norm<Lanes>>(x, y, rows, n, head, form)
                                       : rows_of_type<Uint8Ratio<Lanes>>(x, y, rows, n, head, form);
}

void int8_to_int16(const int8_t* x, int16_t* y, size_t rows, size_t n, const Head& head, const Form& form) {
  if (n <= kShortInt16) return kAvx2Kernels.int8_to_int16(x, y, rows, n, head, form);
  form.reciprocal == Reciprocal::kNorm ? rows_of_type<Int16Norm<Lanes>>(x, y, rows, n, head, form)
                                       : rows_of_type<Int16Ratio<Lanes>>(x, y, rows, n, head, form);
}

}  // namespace

const Kernels kAvx512Kernels{"avx512", cpu_has_avx512, int8_to_uint8, int8_to_int16, avx512_float_rows};

}  // namespace hccs
