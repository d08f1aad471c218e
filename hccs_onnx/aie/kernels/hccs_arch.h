// What differs between generations of the AI Engine, in one place: AIE (10), AIE-ML (20), XDNA 2 and AIE-MLv2 (21, 22).
#pragma once

#include <aie_api/aie.hpp>
#include <type_traits>

// Directives for AMD's compiler; they have to stand between a loop's head and its body. Unrolled, not flattened: what
// depends on the number of a step is then known when each copy is compiled.
#if defined(__chess__)
#define HCCS_PIPELINED chess_prepare_for_pipelining
#define HCCS_UNROLLED chess_unroll_loop(*)
#else
#define HCCS_PIPELINED
#define HCCS_UNROLLED
#endif

namespace hccs {

#if __AIE_ARCH__ == 10
using accumulator = acc48;              // the narrowest there is
constexpr bool has_unsigned32 = false;  // no vectors of uint16 or uint32
constexpr unsigned scratch_limit = 4096;
constexpr bool has_int8 = false;  // arithmetic widens 8-bit lanes and packs them again; zips take them one by one
#else
using accumulator = acc32;
constexpr bool has_unsigned32 = true;
constexpr unsigned scratch_limit = 8192;
constexpr bool has_int8 = true;
#endif

// 64 codes. Rows begin at a multiple of `stride` bytes: the 512-bit loads of XDNA 2 and AIE-MLv2 need a multiple of 64.
template <unsigned stride>
aie::vector<int8, 64> load64(const int8* codes) {
  if constexpr (__AIE_ARCH__ > 20 && stride % 64 != 0) {
    return aie::concat(aie::load_v<32>(codes), aie::load_v<32>(codes + 32));
  } else {
    return aie::load_v<64>(codes);
  }
}

// Codes in lanes that vector arithmetic and permutes take as they are.
using Computed = std::conditional_t<has_int8, int8, int16>;
inline aie::vector<Computed, 64> computed(const aie::vector<int8, 64>& codes) {
#if __AIE_ARCH__ == 10
  return aie::unpack(codes);
#else
  return codes;
#endif
}

// Lanes of at most 32767, and 0 for those below 0: saturated to unsigned, where there are such vectors.
inline aie::vector<int16, 32> not_negative(const aie::accum<accumulator, 32>& sums) {
#if __AIE_ARCH__ == 10
  return aie::max(sums.to_vector<int16>(0), int16(0));
#else
  return sums.to_vector<uint16>(0).cast_to<int16>();
#endif
}

}  // namespace hccs
