// AVX2 kernels. Only this file is compiled for AVX2 and FMA, so nothing here may run before cpu_has_avx2_fma() said
// yes.
//
// int8 rows: 32 codes to a vector; gap codes stay 8 bits wide, scores and products take 16-bit lanes (see LaneForm).
// The last vector of a row overlaps the one before it, so every n >= 32 runs without a scalar tail; what overlaps is
// left out of the sums and computed twice otherwise.
//
// Float rows: scores are kept in y between the passes.
//
// A row is a chain: its maximum, then its sum, then its reciprocal, each of them dozens of cycles late. So a block of
// rows goes through each pass before the next pass begins: the rows of a pass do not wait for each other, and they are
// in the first-level cache when they are needed again.
#include "kernel_avx2.h"

#include <immintrin.h>

#include "cpu.h"
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
inline __m256i splat16(uint32_t value) {
  return _mm256_set1_epi16(static_cast<int16_t>(value));
}
inline __m256i splat8(int value) {
  return _mm256_set1_epi8(static_cast<char>(value));
}

// Bytes that select the last `count` of 32 lanes, from a sliding window.
alignas(32) const uint8_t kLastLanes[64] = {
    0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   0,
    0,   0,   0,   0,   0,   0,   0,   0,   0,   0,   255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
    255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
inline __m256i last_lanes(size_t count) {
  return load(kLastLanes + count);
}

// The largest of 32 codes. Flipped to an unsigned minimum, for which there is an instruction.
inline int8_t maximum_of_lanes(__m256i v) {
  const __m128i flip = _mm_set1_epi8(0x7f);
  __m128i a = _mm_max_epi8(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  a = _mm_xor_si128(a, flip);
  a = _mm_min_epu8(a, _mm_srli_epi16(a, 8));  // upper bytes become 0
  return static_cast<int8_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(a)) ^ 0x7f);
}

inline uint64_t sum_of_lanes(__m256i v) {
  const __m128i a = _mm_add_epi64(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  return static_cast<uint64_t>(_mm_cvtsi128_si64(_mm_add_epi64(a, _mm_unpackhi_epi64(a, a))));
}

// ---- Gap codes
// -------------------------------------------------------------------------------------------------------

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

// ---- From gap codes to probabilities
// ---------------------------------------------------------------------------------

// Four row sums 1 <= Z < 2^52 as doubles.
inline __m256d four_doubles(const uint64_t* Z) {
  const __m256i magic = _mm256_set1_epi64x(0x4330000000000000);  // bits of 2^52, whose last place is 1
  return _mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(load(Z), magic)), _mm256_castsi256_pd(magic));
}

// min(32767, floor(numerator / divisor)); see reciprocal.h for why it is exact.
inline __m128i four_reciprocals(double numerator, __m256d divisor) {
  return _mm_min_epi32(_mm256_cvttpd_epi32(_mm256_div_pd(_mm256_set1_pd(numerator), divisor)), _mm_set1_epi32(32767));
}

// rho of div and clb for four rows.
inline void four_ratios(double numerator, const uint64_t* Z, Reciprocal reciprocal, uint16_t* rho) {
  __m256d divisor = four_doubles(Z);
  if (reciprocal == Reciprocal::kClb) {  // the power of two below: no fraction
    divisor = _mm256_and_pd(divisor, _mm256_castsi256_pd(_mm256_set1_epi64x(0x7ff0000000000000)));
  }
  const __m128i wide = four_reciprocals(numerator, divisor);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(rho), _mm_packus_epi32(wide, wide));
}

// For each form a type `Row`, a few numbers that depend on the row sum, and `Value`, the same as vectors: from 16
// lifted scores to 16 probabilities. See LaneForm. make_rows works on four rows at once, in arrays whose length is a
// multiple of four, with some Z >= 1 everywhere.

struct Uint8Ratio {
  using Result = uint8_t;
  using Row = uint16_t;
  static constexpr bool kSometimesWide = false;
  static LaneForm lanes(const Head& head) { return lane_form(head, 1, 0); }
  static void make_rows(const LaneForm&, const uint64_t* Z, size_t count, size_t, Reciprocal reciprocal, Row* rows) {
    for (size_t j = 0; j < count; j += 4) four_ratios(255 << 15, Z + j, reciprocal, rows + j);
  }
  struct Value {
    explicit Value(Row row) : rho(splat16(row)) {}
    __m256i operator()(__m256i w) const { return _mm256_mulhi_epu16(w, rho); }
    __m256i rho;
  };
};

struct Int16Ratio {
  using Result = int16_t;
  using Row = uint16_t;
  static constexpr bool kSometimesWide = false;
  static LaneForm lanes(const Head& head) { return lane_form(head, 0, 0); }
  static void make_rows(const LaneForm&, const uint64_t* Z, size_t count, size_t, Reciprocal reciprocal, Row* rows) {
    for (size_t j = 0; j < count; j += 4) four_ratios(32767, Z + j, reciprocal, rows + j);
  }
  struct Value {
    explicit Value(Row row) : rho(splat16(row)) {}
    __m256i operator()(__m256i w) const { return _mm256_min_epu16(_mm256_mullo_epi16(w, rho), splat16(32767)); }
    __m256i rho;
  };
};

struct NormRow {
  uint16_t rho;
  uint16_t scale;  // 2^(15-shift): a multiplication with rounding is the shift
  int32_t shift;
};

inline NormRow norm_row(const LaneForm& lanes, uint64_t Z) {
  const uint32_t exponent = floor_log2(Z);
  const int32_t shift = static_cast<int32_t>(exponent) - lanes.base;
  const uint32_t scale = shift >= 1 && shift <= 15 ? 1u << (15 - shift) : 0;  // from 16 on nothing is left
  return {static_cast<uint16_t>(rho_norm(Z, exponent)), static_cast<uint16_t>(scale), shift};
}

// The same for four rows at once; every Z is below 2^36, so that no quotient needs a step back.
inline void make_four_rows(const LaneForm& lanes, const uint64_t* Z, NormRow* rows) {
  const __m256i bits = _mm256_castpd_si256(four_doubles(Z));
  const __m256i fraction = _mm256_and_si256(bits, _mm256_set1_epi64x(0x000fffffffffffff));
  const __m256d significand = _mm256_castsi256_pd(_mm256_or_si256(fraction, _mm256_set1_epi64x(0x3ff0000000000000)));
  const __m128i rho = four_reciprocals(32768, significand);
  const __m256i lower_halves = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
  const __m128i biased = _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(_mm256_srli_epi64(bits, 52), lower_halves));
  const __m128i shift = _mm_sub_epi32(biased, _mm_set1_epi32(1023 + lanes.base));
  // Counts beyond 31, negative ones among them, shift everything out.
  const __m128i scale = _mm_sllv_epi32(_mm_set1_epi32(1), _mm_sub_epi32(_mm_set1_epi32(15), shift));
  const __m128i both = _mm_or_si128(rho, _mm_slli_epi32(scale, 16));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(rows), _mm_unpacklo_epi32(both, shift));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(rows + 2), _mm_unpackhi_epi32(both, shift));
}
static_assert(sizeof(NormRow) == 8, "two rows to a vector");

inline void make_norm_rows(const LaneForm& lanes, const uint64_t* Z, size_t count, size_t n, NormRow* rows) {
  constexpr size_t kSmallSums = size_t{1} << 21;  // n*B < 2^36
  if (n <= kSmallSums) {
    for (size_t j = 0; j < count; j += 4) make_four_rows(lanes, Z + j, rows + j);
  } else {
    for (size_t j = 0; j < count; ++j) rows[j] = norm_row(lanes, Z[j]);
  }
}

struct NormValue {
  explicit NormValue(const NormRow& row) : rho(splat16(row.rho)), scale(splat16(row.scale)) {}
  __m256i operator()(__m256i w) const { return _mm256_mulhrs_epi16(_mm256_mulhi_epu16(w, rho), scale); }
  __m256i rho, scale;
};

// For shift < 1. Products of 32 bits: (w/2)*rho + half, shifted by 14 or 15. Every w is even.
struct WideNormValue {
  explicit WideNormValue(const NormRow& row)
      : shift(_mm_cvtsi32_si128(15 + row.shift)),
        factors(_mm256_blend_epi16(splat16(row.rho), splat16(1u << (14 + row.shift)), 0xaa)) {}
  __m256i operator()(__m256i w) const {
    const __m256i one = splat16(1), half = _mm256_srli_epi16(w, 1);
    const __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi16(half, one), factors);
    const __m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi16(half, one), factors);
    const __m256i y = _mm256_packus_epi32(_mm256_srl_epi32(low, shift), _mm256_srl_epi32(high, shift));
    return _mm256_min_epu16(y, splat16(32767));
  }
  __m128i shift;
  __m256i factors;
};

struct Uint8Norm {
  using Result = uint8_t;
  static constexpr bool kSometimesWide = false;
  using Row = NormRow;
  using Value = NormValue;
  static LaneForm lanes(const Head& head) { return lane_form_norm(head, 8); }
  static void make_rows(const LaneForm& lanes, const uint64_t* Z, size_t count, size_t n, Reciprocal, Row* rows) {
    make_norm_rows(lanes, Z, count, n, rows);
  }
};

struct Int16Norm {
  using Result = int16_t;
  static constexpr bool kSometimesWide = true;
  using Row = NormRow;
  using Value = NormValue;
  static LaneForm lanes(const Head& head) { return lane_form_norm(head, 15); }
  static void make_rows(const LaneForm& lanes, const uint64_t* Z, size_t count, size_t n, Reciprocal, Row* rows) {
    make_norm_rows(lanes, Z, count, n, rows);
  }
};

// Calls body(value) with what computes the probabilities of a row.
template <class Type, class Body>
inline void with_value(const typename Type::Row& row, Body body) {
  if constexpr (Type::kSometimesWide) {
    if (row.shift < 1) return body(WideNormValue(row));
  }
  body(typename Type::Value(row));
}

// ---- int8 rows
// -------------------------------------------------------------------------------------------------------

// What all rows of a call share. Where S is 0 gaps do not matter, and are made 0 for write(int16_t*).
struct Constants {
  Constants(const LaneForm& lanes, const Head& head)
      : B(splat16(lanes.B)), S(splat16(lanes.S)), Dmax(splat8(head.S == 0 ? 0 : head.Dmax)) {}
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

// Rows of one block, and the codes that it has at most unless it is a single row.
constexpr size_t kBlockRows = 16;
constexpr size_t kBlockCodes = 8192;

template <class Type, bool kMasked, size_t kVectors>
void block_rows(const int8_t* x, typename Type::Result* y, size_t rows, size_t n, const Head& head, const Form& form) {
  const Layout<kVectors> layout(n);
  const LaneForm lanes = Type::lanes(head);
  const Constants constants(lanes, head);
  const size_t most = kBlockCodes / n < 1 ? 1 : kBlockCodes / n < kBlockRows ? kBlockCodes / n : kBlockRows;
  int8_t maximum[kBlockRows];
  uint64_t Z[kBlockRows];
  typename Type::Row row[kBlockRows];
  for (uint64_t& any : Z) any = 1;
  while (rows > 0) {
    const size_t count = rows < most ? rows : most;
    for (size_t j = 0; j < count; ++j) maximum[j] = row_maximum(x + j * n, layout);
    for (size_t j = 0; j < count; ++j) {
      const GapSum sum = row_gaps<kMasked>(x + j * n, layout, maximum[j], constants.Dmax);
      const uint64_t sum_of_row = row_sum(head, n, maximum[j], sum);
      Z[j] = kMasked && sum_of_row == 0 ? 1 : sum_of_row;
    }
    Type::make_rows(lanes, Z, count, n, form.reciprocal, row);
    for (size_t j = 0; j < count; ++j) {
      if (kMasked && maximum[j] == kMaskCode) {
        zero_row(y + j * n, n);
        continue;
      }
      with_value<Type>(row[j], [&](const auto& value) {
        write_row<kMasked>(x + j * n, y + j * n, layout, maximum[j], constants, value);
      });
    }
    x += count * n;
    y += count * n;
    rows -= count;
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
  switch ((n + kWidth - 1) / kWidth) {
    case 0:
    case 1:
      if (n == kWidth) return block_rows<Type, kMasked, 1>(x, y, rows, n, head, form);
      if (n >= 16) return short_rows<Type, kMasked, 16>(x, y, rows, n, head, form);
      if (n >= 8) return short_rows<Type, kMasked, 8>(x, y, rows, n, head, form);
      if (n >= 4) return short_rows<Type, kMasked, 4>(x, y, rows, n, head, form);
      if (n >= 2) return short_rows<Type, kMasked, 2>(x, y, rows, n, head, form);
      return short_rows<Type, kMasked, 1>(x, y, rows, n, head, form);
    case 2:
      return block_rows<Type, kMasked, 2>(x, y, rows, n, head, form);
    case 3:
      return block_rows<Type, kMasked, 3>(x, y, rows, n, head, form);
    case 4:
      return block_rows<Type, kMasked, 4>(x, y, rows, n, head, form);
    case 5:
      return block_rows<Type, kMasked, 5>(x, y, rows, n, head, form);
    case 6:
      return block_rows<Type, kMasked, 6>(x, y, rows, n, head, form);
    case 7:
      return block_rows<Type, kMasked, 7>(x, y, rows, n, head, form);
    case 8:
      return block_rows<Type, kMasked, 8>(x, y, rows, n, head, form);
    default:
      return block_rows<Type, kMasked, 0>(x, y, rows, n, head, form);
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

// ---- float rows
// ------------------------------------------------------------------------------------------------------

constexpr size_t kFloats = 8;           // in a vector
constexpr size_t kGroup = 4 * kFloats;  // vectors worked on together
constexpr size_t kFloatBlock = 3968;    // (3968 + 4*8)/8 * 32767 < 2^24: sums of scores stay exact in float lanes

inline __m256 infinity() {
  return _mm256_castsi256_ps(_mm256_set1_epi32(0x7f800000));
}
inline __m256 quiet_nan() {
  return _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000));
}

// Scores of logits. Where the gap has to be divided by the scale, a multiplication with its reciprocal takes the
// division's place: it is off by less than 2^-15, so after rounding it differs only for gaps that close to a half;
// `doubt` tells, and then the vectors are divided after all.
template <bool kMasked>
struct FloatScores {
  __m256 maximum, scale, inverse, B, S, Dmax, mask_gap;

  FloatScores(const Head& head, const Form& form)
      : maximum(_mm256_setzero_ps()),
        scale(_mm256_set1_ps(head.scale)),
        inverse(_mm256_set1_ps(1.0f / head.scale)),
        B(_mm256_set1_ps(static_cast<float>(head.B))),
        S(_mm256_set1_ps(static_cast<float>(head.S))),
        Dmax(_mm256_set1_ps(static_cast<float>(head.Dmax))),
        mask_gap(_mm256_set1_ps(form.mask_gap)) {}

  // The order of operands lets NaN through.
  __m256 clipped(__m256 gap) const { return _mm256_min_ps(Dmax, gap); }
  static __m256 rounded(__m256 gap) { return _mm256_round_ps(gap, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

  __m256 finish(__m256 delta, __m256 code) const {
    const __m256 score = _mm256_fnmadd_ps(S, code, B);
    return kMasked ? _mm256_andnot_ps(_mm256_cmp_ps(delta, mask_gap, _CMP_GT_OQ), score) : score;
  }

  __m256 divided(__m256 x) const {
    const __m256 delta = _mm256_sub_ps(maximum, x);
    return finish(delta, rounded(clipped(_mm256_div_ps(delta, scale))));
  }

  __m256 multiplied(__m256 x, __m256* doubt) const {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const __m256 delta = _mm256_sub_ps(maximum, x);
    const __m256 gap = clipped(_mm256_mul_ps(delta, inverse));
    const __m256 code = rounded(gap);
    *doubt = _mm256_max_ps(*doubt, _mm256_andnot_ps(sign, _mm256_sub_ps(gap, code)));
    return finish(delta, code);
  }

  static bool in_doubt(__m256 doubt) {
    return _mm256_movemask_ps(_mm256_cmp_ps(doubt, _mm256_set1_ps(0.49995f), _CMP_GT_OQ)) != 0;
  }

  // Whether the reciprocal of the scale is a normal number with room to spare, so that the bound above holds.
  static bool can_multiply(float scale) { return scale > 1e-30f && scale < 1e30f; }
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
  return load(kFirstFloats + (kFloats - count));
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

// Rows that are not arithmetic: NaN or +inf somewhere, or -inf everywhere.
inline bool special_row(const float* x, float* y, size_t n, float maximum) {
  if (maximum != -_mm256_cvtss_f32(infinity())) return false;
  fill(y, n, has_nan(x, n) ? _mm256_cvtss_f32(quiet_nan()) : 0.0f);
  return true;
}

template <bool kMasked, bool kMultiply>
inline __m256 one_score(const FloatScores<kMasked>& scores, __m256 x) {
  if (!kMultiply) return scores.divided(x);
  __m256 doubt = _mm256_setzero_ps();
  const __m256 score = scores.multiplied(x, &doubt);
  return scores.in_doubt(doubt) ? scores.divided(x) : score;
}

// The vectors of a row of n >= 8 floats: groups of four, single ones, and one that ends with the row.
struct FloatLayout {
  explicit FloatLayout(size_t n)
      : groups((n - 1) / kGroup * kGroup),
        body((n - 1) / kFloats * kFloats),
        last(n - kFloats),
        overlap(_mm256_castsi256_ps(first_floats(kFloats - (n - body)))) {}
  size_t groups, body, last;
  __m256 overlap;
};

inline float row_maximum(const float* x, const FloatLayout& layout) {
  const __m256 end = _mm256_loadu_ps(x + layout.last);
  __m256 m[4] = {end, end, end, end};
  for (size_t i = 0; i < layout.groups; i += kGroup) {
    for (size_t k = 0; k < 4; ++k) m[k] = _mm256_max_ps(m[k], _mm256_loadu_ps(x + i + k * kFloats));
  }
  for (size_t i = layout.groups; i < layout.body; i += kFloats) m[0] = _mm256_max_ps(m[0], _mm256_loadu_ps(x + i));
  return maximum_of_floats(_mm256_max_ps(_mm256_max_ps(m[0], m[1]), _mm256_max_ps(m[2], m[3])));
}

// Writes the scores of a row to y, but for the last vector, which overlaps: that one is handed back. Returns the sum.
template <bool kMasked, bool kMultiply>
inline double write_scores(const float* x, float* y, const FloatLayout& layout, const FloatScores<kMasked>& scores,
                           __m256* end_scores) {
  *end_scores = one_score<kMasked, kMultiply>(scores, _mm256_loadu_ps(x + layout.last));
  __m256 sum = _mm256_andnot_ps(layout.overlap, *end_scores);
  for (size_t i = layout.groups; i < layout.body; i += kFloats) {
    const __m256 score = one_score<kMasked, kMultiply>(scores, _mm256_loadu_ps(x + i));
    _mm256_storeu_ps(y + i, score);
    sum = _mm256_add_ps(sum, score);
  }
  __m256 more = _mm256_setzero_ps();
  double Z = 0;
  size_t i = 0;
  for (size_t begin = 0; begin < layout.groups; begin += kFloatBlock) {
    const size_t stop = layout.groups - begin < kFloatBlock ? layout.groups : begin + kFloatBlock;
    for (; i < stop; i += kGroup) {
      __m256 v[4], s[4], doubt = _mm256_setzero_ps();
      for (size_t k = 0; k < 4; ++k) v[k] = _mm256_loadu_ps(x + i + k * kFloats);
      for (size_t k = 0; k < 4; ++k) s[k] = kMultiply ? scores.multiplied(v[k], &doubt) : scores.divided(v[k]);
      if (kMultiply && scores.in_doubt(doubt)) {
        for (size_t k = 0; k < 4; ++k) s[k] = scores.divided(v[k]);
      }
      for (size_t k = 0; k < 4; ++k) _mm256_storeu_ps(y + i + k * kFloats, s[k]);
      sum = _mm256_add_ps(sum, _mm256_add_ps(s[0], s[1]));
      more = _mm256_add_ps(more, _mm256_add_ps(s[2], s[3]));
    }
    Z += sum_of_floats(_mm256_add_ps(sum, more));
    sum = more = _mm256_setzero_ps();
  }
  return layout.groups == 0 ? sum_of_floats(sum) : Z;
}

inline void scale_row(float* y, const FloatLayout& layout, __m256 reciprocal, __m256 end_scores) {
  for (size_t i = 0; i < layout.groups; i += kGroup) {
    for (size_t k = 0; k < 4; ++k) {
      float* p = y + i + k * kFloats;
      _mm256_storeu_ps(p, _mm256_mul_ps(_mm256_loadu_ps(p), reciprocal));
    }
  }
  for (size_t i = layout.groups; i < layout.body; i += kFloats) {
    _mm256_storeu_ps(y + i, _mm256_mul_ps(_mm256_loadu_ps(y + i), reciprocal));
  }
  _mm256_storeu_ps(y + layout.last, _mm256_mul_ps(end_scores, reciprocal));
}

constexpr size_t kBlockFloats = 2048;

// Rows of n >= 8.
template <bool kMasked, bool kMultiply>
void block_float_rows(const float* x, float* y, size_t rows, size_t n, const Head& head, const Form& form) {
  FloatScores<kMasked> scores(head, form);
  const FloatLayout layout(n);
  const size_t most = kBlockFloats / n < 1 ? 1 : kBlockFloats / n < kBlockRows ? kBlockFloats / n : kBlockRows;
  while (rows > 0) {
    const size_t count = rows < most ? rows : most;
    float maximum[kBlockRows];
    double Z[kBlockRows];
    __m256 end_scores[kBlockRows];
    for (size_t j = 0; j < count; ++j) maximum[j] = row_maximum(x + j * n, layout);
    for (size_t j = 0; j < count; ++j) {
      if (special_row(x + j * n, y + j * n, n, maximum[j])) {  // all done; scaling by 1 changes nothing
        Z[j] = 1;
        end_scores[j] = _mm256_loadu_ps(y + j * n + layout.last);
        continue;
      }
      scores.maximum = _mm256_set1_ps(maximum[j]);
      Z[j] = write_scores<kMasked, kMultiply>(x + j * n, y + j * n, layout, scores, &end_scores[j]);
    }
    for (size_t j = 0; j < count; ++j) {
      if (Z[j] != Z[j]) {
        fill(y + j * n, n, _mm256_cvtss_f32(quiet_nan()));
      } else {
        scale_row(y + j * n, layout, _mm256_set1_ps(1.0f / static_cast<float>(Z[j])), end_scores[j]);
      }
    }
    x += count * n;
    y += count * n;
    rows -= count;
  }
}

// Rows of n < 8: one vector, of which the lanes beyond the row are not touched in memory.
template <bool kMasked>
void short_float_rows(const float* x, float* y, size_t rows, size_t n, const Head& head, const Form& form) {
  FloatScores<kMasked> scores(head, form);
  const __m256i present = first_floats(n);
  const __m256 present_lanes = _mm256_castsi256_ps(present);
  const __m256 absent = _mm256_andnot_ps(present_lanes, _mm256_sub_ps(_mm256_setzero_ps(), infinity()));
  for (size_t j = 0; j < rows; ++j, x += n, y += n) {
    const __m256 v = _mm256_or_ps(_mm256_maskload_ps(x, present), absent);
    const float maximum = maximum_of_floats(v);
    if (special_row(x, y, n, maximum)) continue;
    scores.maximum = _mm256_set1_ps(maximum);
    const __m256 score = _mm256_and_ps(scores.divided(v), present_lanes);
    const double Z = sum_of_floats(score);
    const __m256 probability = _mm256_mul_ps(score, _mm256_set1_ps(1.0f / static_cast<float>(Z)));
    _mm256_maskstore_ps(y, present, Z != Z ? quiet_nan() : probability);
  }
}

template <bool kMasked>
void float_rows_masked(const float* x, float* y, size_t rows, size_t n, const Head& head, const Form& form) {
  if (n < kFloats) {
    short_float_rows<kMasked>(x, y, rows, n, head, form);
  } else if (FloatScores<kMasked>::can_multiply(head.scale)) {
    block_float_rows<kMasked, true>(x, y, rows, n, head, form);
  } else {
    block_float_rows<kMasked, false>(x, y, rows, n, head, form);
  }
}

void float_rows(const float* x, float* y, size_t rows, size_t n, const Head& head, const Form& form) {
  form.masked ? float_rows_masked<true>(x, y, rows, n, head, form)
              : float_rows_masked<false>(x, y, rows, n, head, form);
}

}  // namespace

const Kernels kAvx2Kernels{"avx2", cpu_has_avx2_fma, integer_rows<Uint8Norm, Uint8Ratio>,
                           integer_rows<Int16Norm, Int16Ratio>, float_rows};

}  // namespace hccs
