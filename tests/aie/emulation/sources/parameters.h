// What aie4ml generates as parameters.h, for every kernel that the test runs: the names are its kernels' interface.
#pragma once

#include <adf.h>
#include <aie_api/aie.hpp>

struct bank_choice {
  int col, row, bank_count, bank0, bank1;
};

template <class Output, int Rows, int Columns, bool Clb, int MicrotileOuter = 0, int MicrotileInner = 0,
          bool TransposeInput = false>
struct config {
  using input_t = int8;
  using output_t = Output;
  using acc_scalar_t = std::conditional_t<__AIE_ARCH__ == 10, acc48, acc32>;
  static constexpr int CAS_NUM = 1, CAS_LENGTH = 1;
  static constexpr int ROWS = Rows, COLS = Columns, VEC = 32, INV_SHIFT = 15;
  static constexpr bool USE_CLB = Clb, APPROX_EXP = false;
  static constexpr bool LAYOUT_TILED = MicrotileOuter != 0, TRANSPOSE_INPUT = TransposeInput;
  static constexpr int MICROTILE_OUTER = MicrotileOuter, MICROTILE_INNER = MicrotileInner;
  static constexpr bank_choice IN1_BUFFER_LOCATIONS[] = {{0, 0, 2, 0, 3}};
  static constexpr bank_choice OUT1_BUFFER_LOCATIONS[] = {{0, 0, 1, 2, 0}};
  static constexpr int16 EXP_KQ = 92, EXP_A2 = 2811, EXP_B1 = -11004, EXP_C0 = 16384;
  static constexpr int EXP_ZF = 8;
  static constexpr auto ROUNDING = aie::rounding_mode::floor;
  static constexpr auto SATURATION = aie::saturation_mode::saturate;
  static inline int16 B[1];
  static inline int8 S[1];
  static inline uint8 Dmax[1];
};
