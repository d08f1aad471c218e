// Operations of each phase of hccs::softmax on one band of rows, and of the published kernel, a JSON object a line.
// Built by measure_counts.py.
#include <hccs_kernel.h>

#include <cstdio>
#include <memory>
#include <vector>

namespace {

void print_counts(const char* phase, double rows, const char* end) {
  const auto& c = emulation::counters();
  std::printf("\"%s\": {", phase);
  const char* comma = "";
  c.each([&](const char* name, std::uint64_t operations) {
    if (operations != 0) std::printf("%s\"%s\": %.6g", comma, name, double(operations) / rows), comma = ", ";
  });
  std::printf("}%s", end);
  emulation::reset_counters();
}

template <class Out, hccs::Reciprocal R, bool Masked, unsigned N, bool Wide>
void phases(const char* name) {
  using namespace hccs;
  using S = Shape<N, 32, Masked>;
  constexpr unsigned rows = S::band_rows();
  std::vector<int8> memory(rows * S::columns + 64);
  auto* codes = reinterpret_cast<int8*>((reinterpret_cast<std::uintptr_t>(memory.data()) + 63) / 64 * 64);
  for (unsigned i = 0; i < rows * S::columns; ++i)
    codes[i] = Masked && i % 2 != 0 ? int8(mask_code) : int8(i * 37 % 128);  // half of them hidden
  auto out = std::make_unique<Out[]>(rows * S::columns + 64);
  auto* y = reinterpret_cast<Out*>((reinterpret_cast<std::uintptr_t>(out.get()) + 63) / 64 * 64);
  const int32 offset = Wide ? 32767 : 32767 / int32(N);
  const int32 values[] = {offset, offset / 64 < 127 ? offset / 64 : 127, 60, 0};
  const Head head(values);
  const SumRange range = SumRange::of<S>(head);
  const auto band = std::make_unique<Band<S>>();
  fill_columns(band->unit_columns, 1);
  fill_columns(band->slope_columns, int8(head.S));
  aie::set_saturation(aie::saturation_mode::saturate);
  aie::set_rounding(aie::rounding_mode::floor);
  emulation::reset_counters();
  std::printf("{\"kernel\": \"%s %s\", \"n\": %u, ", name, Wide ? "wide" : "narrow", N);
  for_each_group<rows>([&](unsigned first, auto group) {
    group_maxima<S, decltype(group)::value>(codes + first * S::columns, band->maximum + first);
  });
  print_counts("maxima", rows, ", ");
  clip_levels(head, *band);
  for_each_group<rows>([&](unsigned first, auto group) {
    group_sums<S, decltype(group)::value>(codes + first * S::columns, first, *band);
  });
  finish_sums(head, range.least, *band);
  print_counts("sums", rows, ", ");
  reciprocals<Out, R>(range, rows, *band);
  print_counts("reciprocals", rows, ", ");
  normalise<Out, R>(head, rows, *band, y);
  print_counts("normalise", rows, "}\n");
}

template <class Out, hccs::Reciprocal R, bool Masked, bool Wide = false>
void lengths(const char* name) {
  phases<Out, R, Masked, 32, Wide>(name);
  phases<Out, R, Masked, 64, Wide>(name);
  phases<Out, R, Masked, 128, Wide>(name);
  phases<Out, R, Masked, 256, Wide>(name);
  phases<Out, R, Masked, 512, Wide>(name);
  phases<Out, R, Masked, 576, Wide>(name);  // the first that is not unrolled
  phases<Out, R, Masked, 1024, Wide>(name);
}

}  // namespace

#ifdef PUBLISHED
#include "parameters.h"
#include "softmax.cpp"

template <class Config>
void published(const char* name) {
  constexpr unsigned elements = Config::ROWS * Config::COLS;
  alignas(64) static int8 x[elements];
  alignas(64) static typename Config::output_t y[elements];
  Config::B[0] = int16(32767 / Config::COLS), Config::S[0] = 1, Config::Dmax[0] = 60;
  softmax_i8<Config> kernel(Config::B[0], Config::S[0], Config::Dmax[0]);
  adf::input_buffer<int8> in(x, elements);
  adf::output_buffer<typename Config::output_t> out(y, elements);
  emulation::reset_counters();
  kernel.run(in, out);
  std::printf("{\"kernel\": \"published %s\", \"n\": %d, ", name, Config::COLS);
  print_counts("rows", Config::ROWS, "}\n");
}
#endif

int main() {
  using hccs::Reciprocal;
  lengths<uint8, Reciprocal::div, false>("uint8 div plain");
  lengths<uint8, Reciprocal::div, true>("uint8 div masked");
  lengths<uint8, Reciprocal::clb, false>("uint8 clb plain");
  lengths<uint8, Reciprocal::clb, true>("uint8 clb masked");
  lengths<uint8, Reciprocal::norm, false>("uint8 norm plain");
  lengths<uint8, Reciprocal::norm, true>("uint8 norm masked");
  lengths<int16, Reciprocal::div, false>("int16 div plain");
  lengths<int16, Reciprocal::div, true>("int16 div masked");
  lengths<int16, Reciprocal::clb, false>("int16 clb plain");
  lengths<int16, Reciprocal::clb, true>("int16 clb masked");
  lengths<int16, Reciprocal::norm, false>("int16 norm plain");
  lengths<int16, Reciprocal::norm, true>("int16 norm masked");
  lengths<uint8, Reciprocal::div, false, true>("uint8 div plain");
  lengths<uint8, Reciprocal::div, true, true>("uint8 div masked");
  lengths<uint8, Reciprocal::norm, false, true>("uint8 norm plain");
  lengths<uint8, Reciprocal::norm, true, true>("uint8 norm masked");
  lengths<int16, Reciprocal::norm, false, true>("int16 norm plain");
  lengths<int16, Reciprocal::norm, true, true>("int16 norm masked");
#ifdef PUBLISHED
  published<config<uint8, 64, 32, true>>("uint8 clb");
  published<config<uint8, 64, 64, true>>("uint8 clb");
  published<config<uint8, 64, 128, true>>("uint8 clb");
  published<config<int16, 64, 32, false>>("int16 div");
  published<config<int16, 64, 64, false>>("int16 div");
  published<config<int16, 64, 128, false>>("int16 div");
#endif
  return 0;
}
