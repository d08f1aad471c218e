// From lifted scores to probabilities with vectors of 16-bit lanes, for the x86 kernels of int8 rows: what LaneForm
// says, written once for every width. `Lanes` names the instructions of one width.
//
// For each form a type with `Row`, a few numbers that depend on the row sum, and `Value`, the same as vectors: from
// lifted scores to probabilities. make_rows works on four rows at once, in arrays whose length is a multiple of four,
// with some Z >= 1 everywhere.
#pragma once

#include <immintrin.h>

#include "reciprocal.h"

namespace hccs {
namespace {

// Four row sums 1 <= Z < 2^52 as doubles.
inline __m256d four_doubles(const uint64_t* Z) {
  const __m256i magic = _mm256_set1_epi64x(0x4330000000000000);  // bits of 2^52, whose last place is 1
  const __m256i sums = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(Z));
  return _mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(sums, magic)), _mm256_castsi256_pd(magic));
}

// min(32767, floor(numerator / divisor)); see reciprocal.h for why it is exact.
inline __m128i four_reciprocals(double numerator, __m256d divisor) {
  return _mm_min_epi32(_mm256_cvttpd_epi32(_mm256_div_pd(_mm256_set1_pd(numerator), divisor)), _mm_set1_epi32(32767));
}

// rho of div and clb for `count` rows.
inline void ratios(double numerator, const uint64_t* Z, size_t count, Reciprocal reciprocal, uint16_t* rho) {
  for (size_t j = 0; j < count; j += 4) {
    __m256d divisor = four_doubles(Z + j);
    if (reciprocal == Reciprocal::kClb) {  // the power of two below: no fraction
      divisor = _mm256_and_pd(divisor, _mm256_castsi256_pd(_mm256_set1_epi64x(0x7ff0000000000000)));
    }
    const __m128i wide = four_reciprocals(numerator, divisor);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(rho + j), _mm_packus_epi32(wide, wide));
  }
}

struct NormRow {
  uint16_t rho;
  uint16_t scale;  // 2^(15-shift): a multiplication with rounding is the shift
  int32_t shift;
};
static_assert(sizeof(NormRow) == 8, "two rows to a vector of 16 bytes");

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

inline void norm_rows(const LaneForm& lanes, const uint64_t* Z, size_t count, size_t n, NormRow* rows) {
  constexpr size_t kSmallSums = size_t{1} << 21;  // n*B < 2^36
  if (n <= kSmallSums) {
    for (size_t j = 0; j < count; j += 4) make_four_rows(lanes, Z + j, rows + j);
  } else {
    for (size_t j = 0; j < count; ++j) rows[j] = norm_row(lanes, Z[j]);
  }
}

template <class Lanes>
struct Uint8Ratio {
  using Result = uint8_t;
  using Row = uint16_t;
  using Vector = typename Lanes::Vector;
  static constexpr bool kSometimesWide = false;
  static LaneForm lanes(const Head& head) { return lane_form(head, 1, 0); }
  static void make_rows(const LaneForm&, const uint64_t* Z, size_t count, size_t, Reciprocal reciprocal, Row* rows) {
    ratios(255 << 15, Z, count, reciprocal, rows);
  }
  struct Value {
    explicit Value(Row row) : rho(Lanes::splat16(row)) {}
    Vector operator()(Vector w) const { return Lanes::high(w, rho); }
    Vector rho;
  };
};

template <class Lanes>
struct Int16Ratio {
  using Result = int16_t;
  using Row = uint16_t;
  using Vector = typename Lanes::Vector;
  static constexpr bool kSometimesWide = false;
  static LaneForm lanes(const Head& head) { return lane_form(head, 0, 0); }
  static void make_rows(const LaneForm&, const uint64_t* Z, size_t count, size_t, Reciprocal reciprocal, Row* rows) {
    ratios(32767, Z, count, reciprocal, rows);
  }
  struct Value {
    explicit Value(Row row) : rho(Lanes::splat16(row)) {}
    Vector operator()(Vector w) const { return Lanes::min16(Lanes::low(w, rho), Lanes::splat16(32767)); }
    Vector rho;
  };
};

template <class Lanes>
struct NormValue {
  using Vector = typename Lanes::Vector;
  explicit NormValue(const NormRow& row) : rho(Lanes::splat16(row.rho)), scale(Lanes::splat16(row.scale)) {}
  Vector operator()(Vector w) const { return Lanes::rounded_high(Lanes::high(w, rho), scale); }
  Vector rho, scale;
};

// For shift < 1. Products of 32 bits: (w/2)*rho + half, shifted by 14 or 15. Every w is even.
template <class Lanes>
struct WideNormValue {
  using Vector = typename Lanes::Vector;
  explicit WideNormValue(const NormRow& row)
      : shift(_mm_cvtsi32_si128(15 + row.shift)), factors(Lanes::splat32(row.rho | 1u << (30 + row.shift))) {}
  Vector operator()(Vector w) const {
    return Lanes::min16(Lanes::products(Lanes::halved(w), factors, shift), Lanes::splat16(32767));
  }
  __m128i shift;
  Vector factors;
};

template <class Lanes>
struct Uint8Norm {
  using Result = uint8_t;
  using Row = NormRow;
  using Value = NormValue<Lanes>;
  static constexpr bool kSometimesWide = false;
  static LaneForm lanes(const Head& head) { return lane_form_norm(head, 8); }
  static void make_rows(const LaneForm& lanes, const uint64_t* Z, size_t count, size_t n, Reciprocal, Row* rows) {
    norm_rows(lanes, Z, count, n, rows);
  }
};

template <class Lanes>
struct Int16Norm {
  using Result = int16_t;
  using Row = NormRow;
  using Value = NormValue<Lanes>;
  using WideValue = WideNormValue<Lanes>;
  static constexpr bool kSometimesWide = true;
  static LaneForm lanes(const Head& head) { return lane_form_norm(head, 15); }
  static void make_rows(const LaneForm& lanes, const uint64_t* Z, size_t count, size_t n, Reciprocal, Row* rows) {
    norm_rows(lanes, Z, count, n, rows);
  }
};

// Calls body(value) with what computes the probabilities of a row.
template <class Type, class Body>
inline void with_value(const typename Type::Row& row, Body body) {
  if constexpr (Type::kSometimesWide) {
    if (row.shift < 1) return body(typename Type::WideValue(row));
  }
  body(typename Type::Value(row));
}

// The largest of 32 codes. Flipped to an unsigned minimum, for which there is an instruction.
inline int8_t maximum_of_lanes(__m256i v) {
  const __m128i flip = _mm_set1_epi8(0x7f);
  __m128i a = _mm_max_epi8(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
  a = _mm_xor_si128(a, flip);
  a = _mm_min_epu8(a, _mm_srli_epi16(a, 8));  // upper bytes become 0
  return static_cast<int8_t>(_mm_cvtsi128_si32(_mm_minpos_epu16(a)) ^ 0x7f);
}

// Rows of one block, and the codes that it has at most unless it is a single row.
constexpr size_t kBlockRows = 16;
constexpr size_t kBlockCodes = 8192;

inline size_t rows_of_block(size_t n) {
  return kBlockCodes / n < 1 ? 1 : kBlockCodes / n < kBlockRows ? kBlockCodes / n : kBlockRows;
}

}  // namespace
}  // namespace hccs
