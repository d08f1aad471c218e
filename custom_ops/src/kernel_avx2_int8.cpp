// AVX2 kernels for int8 rows. Compiled for AVX2 and FMA, so nothing here may run before cpu_has_avx2_fma() said yes.
//
// 32 codes to a vector; gap codes stay 8 bits wide, scores and products take 16-bit lanes (see LaneForm). The last
// vector of a row overlaps the one before it, so every n >= 32 runs without a scalar tail; what overlaps is left out of
// the sums and computed twice otherwise.
//
// Masked keys at the end of neighbouring rows, where padding puts them, are left out before anything is computed.
//
// A row is a chain: its maximum, then its sum, then its reciprocal, each of them dozens of cycles late. So a block of
// rows goes through each pass before the next pass begins: the rows of a pass do not wait for each other, and they are
// in the first-level cache when they are needed again.
#include <immintrin.h>

#include "cpu.h"
#include "int8_forms.h"
#include "kernel_avx2.h"
#include "reciprocal.h"

namespace hccs {
namespace {

constexpr size_t kWidth = 32;  // codes in a vector

inline __m256i load(const void* p) {
  return _mm256_loadu_si256(static_cast<const __m256i*>(p));
}
inline void store(void* p, __m256i v) {
  _mm256_storeu_si256(static_cast<__m256i*>(p), v);
}
inline __m256i splat8(int value) {
  return _mm256_set1_epi8(static_cast<char>(value));
}

struct Lanes {
  using Vector = __m256i;
  static Vector splat16(uint32_t value) { return _mm256_set1_epi16(static_cast<int16_t>(value)); }
  static Vector splat32(uint32_t value) { return _mm256_set1_epi32(static_cast<int32_t>(value)); }
  static Vector low(Vector a, Vector b) { return _mm256_mullo_epi16(a, b); }
  static Vector high(Vector a, Vector b) { return _mm256_mulhi_epu16(a, b); }
  static Vector rounded_high(Vector a, Vector b) { return _mm256_mulhrs_epi16(a, b); }
  static Vector min16(Vector a, Vector b) { return _mm256_min_epu16(a, b); }
  static Vector halved(Vector a) { return _mm256_srli_epi16(a, 1); }
  // (a*low half + high half) >> shift with 32 bits, for both halves of a 32-bit lane of `factors`.
  static Vector products(Vector a, Vector factors, __m128i shift) {
    const Vector one = splat16(1);
    const Vector lower = _mm256_madd_epi16(_mm256_unpacklo_epi16(a, one), factors);
    const Vector upper = _mm256_madd_epi16(_mm256_unpackhi_epi16(a, one), factors);
    return _mm256_packus_epi32(_mm256_srl_epi32(lower, shift), _mm256_srl_epi32(upper, shift));
  }
};

// Bytes that select the last `count` of 32 lanes, from a sliding window.
alignas(32) const uint8_t kLastLanes[64] = {
    0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,
    0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
inline __m256i last_lanes(size_t count) {
  return load(kLastLanes + count);
}

inline uint64_t sum_of_lanes(__m256i v) {
  const __m128i a = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(_mm_add_epi64(a, _mm_unpackhi_epi64(a, a))));
}

inline __m256i gap_code(__m256i maximum, __m256i x, __m256i Dmax) {
  return _mm256_min_epu8(_mm256_sub_epi8(maximum, x), Dmax);
}

// All ones where the mask code is.
inline __m256i is_hidden(__m256i x) {
  return _mm256_cmpeq_epi8(x, splat8(kMaskCode));
}

// Sums of gap codes and numbers of masked positions.
template <bool kMasked>
class CodeSum {
 public:
  CodeSum(__m256i maximum, __m256i Dmax) : maximum_(maximum), Dmax_(Dmax) {}

  void add(__m256i x) {
    add_gaps(gap_code(maximum_, x, Dmax_));
    if (kMasked) hidden_ += static_cast<uint64_t>(_mm_popcnt_u32(lane_bits(is_hidden(x))));
  }

  // Only the lanes that `fresh` selects.
  void add(__m256i x, __m256i fresh) {
    add_gaps(_mm256_and_si256(gap_code(maximum_, x, Dmax_), fresh));
    if (kMasked) hidden_ += static_cast<uint64_t>(_mm_popcnt_u32(lane_bits(_mm256_and_si256(is_hidden(x), fresh))));
  }

  void add(const CodeSum& other) {
    gaps_ = _mm256_add_epi64(gaps_, other.gaps_);
    hidden_ += other.hidden_;
  }

  GapSum total() const { return {sum_of_lanes(gaps_), hidden_}; }

 private:
  static unsigned lane_bits(__m256i mask) { return static_cast<unsigned>(_mm256_movemask_epi8(mask)); }

  void add_gaps(__m256i gaps) { gaps_ = _mm256_add_epi64(gaps_, _mm256_sad_epu8(gaps, _mm256_setzero_si256())); }

  __m256i maximum_, Dmax_;
  __m256i gaps_ = _mm256_setzero_si256();
  uint64_t hidden_ = 0;
};

// What all rows of a call share. Where S is 0 gaps do not matter, and are made 0 for write(int16_t*).
struct Constants {
  Constants(const LaneForm& lanes, const Head& head)
      : B(Lanes::splat16(lanes.B)), S(Lanes::splat16(lanes.S)), Dmax(splat8(head.S == 0 ? 0 : head.Dmax)) {}
  __m256i B, S, Dmax;
};

// Writes the probabilities of 32 codes. Every value is below 2^15, so the saturating pack is the min(255).
template <bool kMasked, class Value>
inline void write(uint8_t* y, __m256i x, __m256i maximum, const Constants& c, const Value& value) {
  const __m256i zero = _mm256_setzero_si256();
  const __m256i gap = gap_code(maximum, x, c.Dmax);
  const __m256i low = _mm256_sub_epi16(c.B, _mm256_mullo_epi16(_mm256_unpacklo_epi8(gap, zero), c.S));
  const __m256i high = _mm256_sub_epi16(c.B, _mm256_mullo_epi16(_mm256_unpackhi_epi8(gap, zero), c.S));
  const __m256i packed = _mm256_packus_epi16(value(low), value(high));
  store(y, kMasked ? _mm256_andnot_si256(is_hidden(x), packed) : packed);
}

// Scores of 16 gaps. Masked ones have all bits set: no less than the score lost per gap, nor than B, so they get score
// 0.
template <bool kMasked>
inline __m256i scores(__m256i gap, const Constants& c) {
  const __m256i lost = _mm256_mullo_epi16(gap, c.S);
  return kMasked ? _mm256_subs_epu16(c.B, _mm256_max_epu16(lost, gap)) : _mm256_sub_epi16(c.B, lost);
}

template <bool kMasked, class Value>
inline void write(int16_t* y, __m256i x, __m256i maximum, const Constants& c, const Value& value) {
  const __m256i ordered = _mm256_permute4x64_epi64(x, 0xd8);  // so that unpacking keeps neighbours together
  const __m256i hidden = kMasked ? is_hidden(ordered) : _mm256_setzero_si256();
  __m256i gap = gap_code(maximum, ordered, c.Dmax);
  if (kMasked) gap = _mm256_or_si256(gap, hidden);
  store(y, value(scores<kMasked>(_mm256_unpacklo_epi8(gap, hidden), c)));
  store(y + kWidth / 2, value(scores<kMasked>(_mm256_unpackhi_epi8(gap, hidden), c)));
}

template <class Result>
inline void zero_row(Result* y, size_t n) {
  for (size_t i = 0; i < n; ++i) y[i] = 0;
}

// The vectors of a row of n >= 32 codes: `body` codes in whole vectors, then one that ends with the row. kVectors is
// their number where it is known when compiling, so that loops unroll, and 0 otherwise.
template <size_t kVectors>
struct Layout {
  explicit Layout(size_t n)
      : body(kVectors != 0 ? (kVectors - 1) * kWidth : (n - 1) / kWidth * kWidth),
        last(n - kWidth),
        fresh(last_lanes(n - body)) {}
  size_t body, last;
  __m256i fresh;
};

// What is left of rows of n >= 32 codes without the vectors of masked codes that all of them end with; at least one
// vector.
inline size_t shown_length(const int8_t* x, size_t rows, size_t n) {
  size_t length = n < 2 * kWidth ? n : kWidth + n % kWidth;
  for (size_t j = 0; j < rows && length < n; ++j) {
    size_t own = n;
    while (own > length && _mm256_movemask_epi8(is_hidden(load(x + j * n + own - kWidth))) == -1) own -= kWidth;
    length = own;
  }
  return length;
}

// Zeroes whole vectors: results of codes from `begin` to `end`, which are left out.
template <class Result>
inline void zero_vectors(Result* y, size_t begin, size_t end) {
  for (size_t i = begin * sizeof(Result); i < end * sizeof(Result); i += kWidth) {
    store(reinterpret_cast<uint8_t*>(y) + i, _mm256_setzero_si256());
  }
}

template <size_t kVectors>
inline int8_t row_maximum(const int8_t* x, const Layout<kVectors>& layout) {
  const size_t body = kVectors != 0 ? (kVectors - 1) * kWidth : layout.body;
  __m256i even = load(x + layout.last), odd = even;
  size_t i = 0;
  for (; i + 2 * kWidth <= body; i += 2 * kWidth) {
    even = _mm256_max_epi8(even, load(x + i));
    odd = _mm256_max_epi8(odd, load(x + i + kWidth));
  }
  if (i < body) even = _mm256_max_epi8(even, load(x + i));
  return maximum_of_lanes(_mm256_max_epi8(even, odd));
}

template <bool kMasked, size_t kVectors>
inline GapSum row_gaps(const int8_t* x, const Layout<kVectors>& layout, int8_t maximum, __m256i Dmax) {
  const size_t body = kVectors != 0 ? (kVectors - 1) * kWidth : layout.body;
  CodeSum<kMasked> even(splat8(maximum), Dmax), odd = even;
  size_t i = 0;
  for (; i + 2 * kWidth <= body; i += 2 * kWidth) {
    even.add(load(x + i));
    odd.add(load(x + i + kWidth));
  }
  if (i < body) even.add(load(x + i));
  odd.add(load(x + layout.last), layout.fresh);
  even.add(odd);
  return even.total();
}

template <bool kMasked, size_t kVectors, class Result, class Value>
inline void write_row(const int8_t* x, Result* y, const Layout<kVectors>& layout, int8_t maximum, const Constants& c,
                      const Value& value) {
  const size_t body = kVectors != 0 ? (kVectors - 1) * kWidth : layout.body;
  const __m256i m = splat8(maximum), end = load(x + layout.last);
  for (size_t i = 0; i < body; i += kWidth) write<kMasked>(y + i, load(x + i), m, c, value);
  write<kMasked>(y + layout.last, end, m, c, value);
}

// Rows of n codes, `stride` apart.
template <class Type, bool kMasked, size_t kVectors>
void block_rows(const int8_t* x, typename Type::Result* y, size_t rows, size_t stride, size_t n, const Head& head,
                const Form& form) {
  const Layout<kVectors> layout(n);
  const LaneForm lanes = Type::lanes(head);
  const Constants constants(lanes, head);
  const size_t most = rows_of_block(n);
  int8_t maximum[kBlockRows];
  uint64_t Z[kBlockRows];
  typename Type::Row row[kBlockRows];
  for (uint64_t& any : Z) any = 1;
  while (rows > 0) {
    const size_t count = rows < most ? rows : most;
    for (size_t j = 0; j < count; ++j) maximum[j] = row_maximum(x + j * stride, layout);
    for (size_t j = 0; j < count; ++j) {
      const GapSum sum = row_gaps<kMasked>(x + j * stride, layout, maximum[j], constants.Dmax);
      const uint64_t sum_of_row = row_sum(head, n, maximum[j], sum);
      Z[j] = kMasked && sum_of_row == 0 ? 1 : sum_of_row;
    }
    Type::make_rows(lanes, Z, count, n, form.reciprocal, row);
    for (size_t j = 0; j < count; ++j) {
      if (kMasked) zero_vectors(y + j * stride, n, stride);
      if (kMasked && maximum[j] == kMaskCode) {
        zero_row(y + j * stride, n);
        continue;
      }
      with_value<Type>(row[j], [&](const auto& value) {
        write_row<kMasked>(x + j * stride, y + j * stride, layout, maximum[j], constants, value);
      });
    }
    x += count * stride;
    y += count * stride;
    rows -= count;
  }
}

template <class Type, bool kMasked>
void vector_rows(const int8_t* x, typename Type::Result* y, size_t rows, size_t stride, size_t n, const Head& head,
                 const Form& form) {
  switch ((n + kWidth - 1) / kWidth) {
    case 1:
      return block_rows<Type, kMasked, 1>(x, y, rows, stride, n, head, form);
    case 2:
      return block_rows<Type, kMasked, 2>(x, y, rows, stride, n, head, form);
    case 3:
      return block_rows<Type, kMasked, 3>(x, y, rows, stride, n, head, form);
    case 4:
      return block_rows<Type, kMasked, 4>(x, y, rows, stride, n, head, form);
    case 5:
      return block_rows<Type, kMasked, 5>(x, y, rows, stride, n, head, form);
    case 6:
      return block_rows<Type, kMasked, 6>(x, y, rows, stride, n, head, form);
    case 7:
      return block_rows<Type, kMasked, 7>(x, y, rows, stride, n, head, form);
    case 8:
      return block_rows<Type, kMasked, 8>(x, y, rows, stride, n, head, form);
    default:
      return block_rows<Type, kMasked, 0>(x, y, rows, stride, n, head, form);
  }
}

// Rows of kPiece <= n < 2*kPiece codes with kPiece up to 16: two overlapping pieces make up one vector.
template <class Type, bool kMasked, size_t kPiece>
void short_rows(const int8_t* x, typename Type::Result* y, size_t rows, size_t n, const Head& head, const Form& form) {
  using Result = typename Type::Result;
  const LaneForm lanes = Type::lanes(head);
  const Constants constants(lanes, head);
  alignas(32) uint8_t fresh_lanes[kWidth] = {};
  for (size_t i = 0; i < kPiece; ++i) {
    fresh_lanes[i] = 255;
    fresh_lanes[kPiece + i] = i + n >= 2 * kPiece ? 255 : 0;
  }
  const __m256i fresh = load(fresh_lanes);
  const size_t last = n - kPiece;
  for (size_t j = 0; j < rows; ++j, x += n, y += n) {
    alignas(32) int8_t both[kWidth];
    for (size_t i = 0; i < kWidth; i += 2 * kPiece) {
      memcpy(both + i, x, kPiece);
      memcpy(both + i + kPiece, x + last, kPiece);
    }
    const __m256i v = load(both);
    const int8_t maximum = maximum_of_lanes(v);
    if (kMasked && maximum == kMaskCode) {
      zero_row(y, n);
      continue;
    }
    CodeSum<kMasked> counter(splat8(maximum), constants.Dmax);
    counter.add(v, fresh);
    const GapSum sum = counter.total();
    const uint64_t Z[4] = {row_sum(head, n, maximum, sum), 1, 1, 1};
    typename Type::Row row[4];
    Type::make_rows(lanes, Z, 1, n, form.reciprocal, row);
    alignas(32) Result values[kWidth];
    with_value<Type>(row[0], [&](const auto& value) { write<kMasked>(values, v, splat8(maximum), constants, value); });
    memcpy(y, values, kPiece * sizeof(Result));
    memcpy(y + last, values + kPiece, kPiece * sizeof(Result));
  }
}

template <class Type, bool kMasked>
void rows_of_type(const int8_t* x, typename Type::Result* y, size_t rows, size_t n, const Head& head,
                  const Form& form) {
  if (n < kWidth) {
    if (n >= 16) return short_rows<Type, kMasked, 16>(x, y, rows, n, head, form);
    if (n >= 8) return short_rows<Type, kMasked, 8>(x, y, rows, n, head, form);
    if (n >= 4) return short_rows<Type, kMasked, 4>(x, y, rows, n, head, form);
    if (n >= 2) return short_rows<Type, kMasked, 2>(x, y, rows, n, head, form);
    return short_rows<Type, kMasked, 1>(x, y, rows, n, head, form);
  }
  if (!kMasked) return vector_rows<Type, kMasked>(x, y, rows, n, n, head, form);
  constexpr size_t kNeighbours = 16;  // rows whose masks are looked at together
  while (rows > 0) {
    const size_t count = rows < kNeighbours ? rows : kNeighbours;
    vector_rows<Type, kMasked>(x, y, count, n, shown_length(x, count, n), head, form);
    x += count * n;
    y += count * n;
    rows -= count;
  }
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

}  // namespace

const Kernels kAvx2Kernels{"avx2", cpu_has_avx2_fma, integer_rows<Uint8Norm<Lanes>, Uint8Ratio<Lanes>>,
                           integer_rows<Int16Norm<Lanes>, Int16Ratio<Lanes>>, avx2_float_rows};

}  // namespace hccs
