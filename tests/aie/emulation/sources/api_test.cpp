// What every function of the AI Engine API does, against values written out by hand. Sources of the semantics:
//   [api]   AI Engine API guide, UG1529
//   [ug]    kernel and graph guides, UG1079 (AIE) and UG1603 (AIE-ML); intrinsics guides as named (UG1583 for AIE-ML)
#include <tuple>

#include "checks.h"

using checks::equal;
using checks::fails;
using checks::lanes_are;
using checks::ramp;
using checks::repeat;
using checks::set_modes;
using R = aie::rounding_mode;
using S = aie::saturation_mode;

static constexpr bool first_generation = __AIE_ARCH__ == 10;
using acc_int8 = std::conditional_t<first_generation, acc48, acc32>;  // what int8 and int16 products go to

// ------------------------------------------------------ vectors [api: Basic Types]
TEST(vector_says_its_size) {
  using V = aie::vector<int16, 32>;
  CHECK(V::size() == 32 && V::bits() == 512 && V::bytes() == 64 && V::type_bits() == 16);
  CHECK(V::is_signed() && V::is_integral() && !V::is_complex() && !aie::vector<uint8, 16>::is_signed());
}
TEST(vector_is_undefined_when_default_constructed) {
  const aie::vector<int32, 16> a, b;
  CHECK(!equal(a, b));
  emulation::seed(7);
  const aie::vector<int32, 16> c;
  emulation::seed(7);
  const aie::vector<int32, 16> d;
  CHECK(equal(c, d));
}
TEST(vector_lanes_are_read_and_written) {
  auto v = ramp<int16, 8>();
  v.set(-5, 2);
  v[3] = 40;
  v[4] = v[0];
  CHECK(v.get(2) == -5 && v[3] == 40 && v[4] == 0 && v.get(7) == 7);
  CHECK(fails([&v] { v.get(8); }));
  CHECK(fails([&v] { v.set(0, 8); }));
}
TEST(vector_is_made_of_values) {
  const aie::vector<int32, 4> v(4, 3, 2, 1);
  CHECK(lanes_are(v, [](int i) { return 4 - i; }));
}
TEST(vector_push_moves_lanes_up) {
  auto v = ramp<int16, 8>(1);
  v.push(9);
  CHECK(lanes_are(v, [](int i) { return i == 0 ? 9 : i; }));
}
TEST(vector_parts_are_extracted_and_inserted) {
  auto v = ramp<int8, 64>();
  CHECK(equal(v.extract<16>(3), ramp<int8, 16>(48)));
  v.insert(1, ramp<int8, 32>(100, 0));
  CHECK(lanes_are(v, [](int i) { return i < 32 ? i : 100; }));
  CHECK(fails([&v] { v.extract<16>(4); }));
  CHECK(fails([&v] { v.insert(2, ramp<int8, 32>()); }));
  const auto [low, high] = ramp<int8, 32>().split<16>();
  CHECK(equal(low, ramp<int8, 16>()) && equal(high, ramp<int8, 16>(16)));
}
TEST(vector_grows_with_undefined_lanes) {
  const auto v = ramp<int16, 8>().grow<16>(1);
  CHECK(equal(v.extract<8>(1), ramp<int16, 8>()));
  CHECK(!equal(v.extract<8>(0), ramp<int16, 8>().grow<16>(1).extract<8>(0)));
  CHECK(equal(ramp<int16, 8>().grow_replicate<16>().extract<8>(1), ramp<int16, 8>()));
  CHECK(equal(ramp<int16, 16>().grow_extract<8>(1), ramp<int16, 8>(8)));
}
TEST(vector_cast_keeps_the_bits) {
  const auto v = ramp<int8, 16>(-2, 0).cast_to<uint8>();
  CHECK(lanes_are(v, [](int) { return 254; }));
  CHECK(lanes_are(aie::vector_cast<int16>(repeat<int8, 16>({1, 2})), [](int) { return 0x0201; }));
}
TEST(unpack_extends_by_sign) {
  CHECK(lanes_are(aie::unpack(ramp<int8, 32>(-16)), [](int i) { return i - 16; }));
  CHECK(lanes_are(repeat<uint8, 32>({255}).unpack(), [](int) { return 255; }));
  CHECK(lanes_are(aie::unpack<int32>(ramp<int16, 16>(-3)), [](int i) { return i - 3; }));
}
// UG1583, "pack": saturates as the control register says
TEST(pack_saturates_as_the_mode_says) {
  aie::set_saturation(S::none);
  CHECK(equal(aie::pack(repeat<int16, 16>({127, -128, 5, -5})), repeat<int8, 16>({127, -128, 5, -5})));
  const auto v = repeat<int16, 16>({200, -200, 5, -5});
#if __AIE_ARCH__ == 10
  CHECK(equal(repeat<int16, 16>({200, 5}).pack<uint8>(), repeat<uint8, 16>({200, 5})));
  CHECK(!equal(aie::pack(v), aie::pack(v)));  // 200 does not fit
#else
  CHECK(equal(aie::pack(v), repeat<int8, 16>({-56, 56, 5, -5})));
  aie::set_saturation(S::saturate);
  CHECK(equal(v.pack(), repeat<int8, 16>({127, -128, 5, -5})));
  aie::set_saturation(S::symmetric);
  CHECK(equal(v.pack(), repeat<int8, 16>({127, -127, 5, -5})));
  CHECK(equal(repeat<uint16, 16>({256, 7}).pack(), repeat<uint8, 16>({255, 7})));
#endif
}

// ------------------------------------------------------ initialisation
TEST(broadcast_fills_all_lanes) {
  CHECK(lanes_are((aie::broadcast<int16, 32>(-7)), [](int) { return -7; }));
  auto v = ramp<int16, 8>();
  CHECK(lanes_are((aie::broadcast<int32, 8>(v[5])), [](int) { return 5; }));
}
TEST(zeros_makes_vectors_and_accumulators) {
  CHECK(lanes_are((aie::zeros<int8, 64>()), [](int) { return 0; }));
  CHECK(lanes_are((aie::zeros<acc_int8, 16>()), [](int) { return 0; }));
}
TEST(concat_puts_the_first_lowest) {
  CHECK(equal(aie::concat(ramp<int8, 16>(), ramp<int8, 16>(16)), ramp<int8, 32>()));
  const auto v = ramp<int8, 16>();
  CHECK(equal(aie::concat(v, v, v, v).extract<16>(3), v));
  const aie::accum<acc48, 8> a(ramp<int16, 8>()), b(ramp<int16, 8>(8));
  CHECK(lanes_are(aie::concat(a, b), [](int i) { return i; }));
}

// ------------------------------------------------------ accumulators [api: accum, tables there]
TEST(accumulator_bits_follow_the_architecture) {
  CHECK(aie::accum<acc32, 16>::accum_bits() == (first_generation ? 48 : 32));
  CHECK(aie::accum<acc48, 16>::accum_bits() == (first_generation ? 48 : 64));
  CHECK(aie::accum<acc64, 16>::accum_bits() == (first_generation ? 80 : 64));
  CHECK(aie::accum<acc40, 8>::accum_min_bits() == 40);
  CHECK(aie::accum<acc40, 8>::bits() == 8 * (first_generation ? 48 : 64));
}
TEST(default_accumulator_follows_the_factors) {
  const auto a8 = ramp<int8, 16>();
  const auto a16 = ramp<int16, 16>();
  const auto a32 = ramp<int32, 16>();
  CHECK(std::is_same_v<decltype(aie::mul(a8, a8)), aie::accum<acc_int8, 16>>);
  CHECK(std::is_same_v<decltype(aie::mul(a16, a16)), aie::accum<acc_int8, 16>>);
  CHECK(
      std::is_same_v<decltype(aie::mul(a32, a16)), aie::accum<std::conditional_t<first_generation, acc48, acc64>, 16>>);
  CHECK(
      std::is_same_v<decltype(aie::mul(a32, a32)), aie::accum<std::conditional_t<first_generation, acc80, acc64>, 16>>);
}
TEST(accumulator_takes_a_vector_shifted_up) {
  aie::accum<acc48, 16> a(ramp<int16, 16>(-8), 4);
  CHECK(lanes_are(a, [](int i) { return (i - 8) * 16; }));
  a.from_vector(ramp<int8, 16>(-8));
  CHECK(lanes_are(a, [](int i) { return i - 8; }));
  CHECK(lanes_are((aie::from_vector<acc48>(ramp<int8, 16>(), 1)), [](int i) { return 2 * i; }));
  CHECK(fails([&a] { a.from_vector(ramp<int16, 16>(), -1); }));
}
// UG1583, "ups": saturation is computed first, then the shift
TEST(shift_into_accumulator_saturates_on_aie_ml) {
  aie::accum<acc32, 8> a;
  aie::set_saturation(S::saturate);
  a.from_vector(repeat<int32, 8>({1 << 20, -(1 << 20), 5}), 12);
  const int64 full = int64{1} << 32, most = 2147483647 / 4096 * 4096LL, least = -2147483648LL;
  const int64 expected[] = {first_generation ? full : most, first_generation ? -full : least, 5 * 4096};
  CHECK(lanes_are(a, [&expected](int i) { return expected[i % 3]; }));
  aie::set_saturation(S::none);
  a.from_vector(repeat<int32, 8>({1 << 20}), 12);
  CHECK(lanes_are(a, [](int) { return first_generation ? int64{1} << 32 : 0; }));
}
TEST(accumulator_wraps_at_its_width) {
  aie::accum<acc32, 8> a(repeat<int32, 8>({2147483647}));
  const auto v = repeat<int16, 8>({1});
  a = aie::mac(a, v, v);
  CHECK(lanes_are(a, [](int) { return first_generation ? 2147483648LL : -2147483648LL; }));
  CHECK(emulation::state().wraps == (first_generation ? 0 : 8));
}
TEST(accumulator_is_undefined_when_default_constructed) {
  const aie::accum<acc48, 16> a, b;
  CHECK(!equal(a, b));
}
TEST(accumulator_parts_are_extracted_and_inserted) {
  aie::accum<acc48, 16> a(ramp<int16, 16>());
  CHECK(lanes_are(a.extract<8>(1), [](int i) { return 8 + i; }));
  a.insert(0, aie::accum<acc48, 8>(ramp<int16, 8>(50)));
  CHECK(lanes_are(a, [](int i) { return i < 8 ? 50 + i : i; }));
  CHECK(lanes_are(a.extract<8>(1).grow<16>().extract<8>(0), [](int i) { return 8 + i; }));
  CHECK(lanes_are(a.extract<8>(1).grow_replicate<16>(), [](int i) { return 8 + i % 8; }));
}
TEST(accumulators_of_equal_width_convert) {
  const aie::accum<acc40, 8> a(ramp<int16, 8>());
  const aie::accum<acc48, 8> b = a;
  CHECK(lanes_are(b, [](int i) { return i; }));
}
#if __AIE_ARCH__ != 10
TEST(sign_is_chosen_at_run_time) {
  aie::accum<acc32, 32> a;
  a.from_vector_sign(repeat<int8, 32>({-1}), false);
  CHECK(lanes_are(a, [](int) { return 255; }));
  a.from_vector_sign(repeat<int8, 32>({-1}), true);
  CHECK(lanes_are(a, [](int) { return -1; }));
  set_modes(R::floor, S::saturate);
  a.from_vector(repeat<int16, 32>({300, -300}));
  CHECK(equal(a.to_vector_sign<uint8>(false), repeat<uint8, 32>({255, 0})));
  CHECK(equal(a.to_vector_sign<uint8>(true), repeat<uint8, 32>({127, 128})));
}
#endif

// ------------------------------------------------------ shift, round, saturate [api: Configuration]
static bool rounds(R mode, std::initializer_list<int> expected) {  // -6/4 .. 6/4
  set_modes(mode, S::saturate);
  const auto v = aie::accum<acc48, 16>(repeat<int16, 16>({-7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 10}));
  return equal(v.to_vector<int16>(2), repeat<int16, 16>(expected));
}
TEST(srs_rounds_as_the_mode_says) {
  CHECK(rounds(R::floor, {-2, -2, -2, -1, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 1, 2}));
  CHECK(rounds(R::ceil, {-1, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3}));
  CHECK(rounds(R::positive_inf, {-2, -1, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3}));
  CHECK(rounds(R::negative_inf, {-2, -2, -1, -1, -1, -1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2}));
  CHECK(rounds(R::symmetric_inf, {-2, -2, -1, -1, -1, -1, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3}));
  CHECK(rounds(R::symmetric_zero, {-2, -1, -1, -1, -1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2}));
  CHECK(rounds(R::conv_even, {-2, -2, -1, -1, -1, 0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2}));
  CHECK(rounds(R::conv_odd, {-2, -1, -1, -1, -1, -1, 0, 0, 0, 1, 1, 1, 1, 1, 2, 3}));
#if __AIE_ARCH__ != 10
  CHECK(rounds(R::symmetric_floor, {-1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2}));
  CHECK(rounds(R::symmetric_ceil, {-2, -2, -2, -1, -1, -1, -1, 0, 1, 1, 1, 1, 2, 2, 2, 3}));
#endif
}
TEST(srs_saturates_as_the_mode_says) {
  const aie::accum<acc48, 16> a(repeat<int32, 16>({40000, -40000, 32767, -32768}));
  set_modes(R::floor, S::none);
  CHECK(equal(a.to_vector<int16>(), repeat<int16, 16>({40000 - 65536, 65536 - 40000, 32767, -32768})));
  aie::set_saturation(S::saturate);
  CHECK(equal(a.to_vector<int16>(), repeat<int16, 16>({32767, -32768, 32767, -32768})));
  CHECK(equal(a.to_vector<uint8>(), repeat<uint8, 16>({255, 0, 255, 0})));
  aie::set_saturation(S::symmetric);
  CHECK(equal(a.to_vector<int16>(), repeat<int16, 16>({32767, -32767, 32767, -32767})));
  CHECK(equal(a.to_vector<uint8>(), repeat<uint8, 16>({255, 0, 255, 0})));
}
TEST(srs_rounds_before_it_saturates) {
  set_modes(R::positive_inf, S::saturate);
  const aie::accum<acc48, 16> a(repeat<int32, 16>({255 * 2 - 1, 255 * 2 + 1}));
  CHECK(equal(aie::to_vector<uint8>(a, 1), repeat<uint8, 16>({255, 255})));
  aie::set_saturation(S::none);
  CHECK(equal(a.to_vector<uint8>(1), repeat<uint8, 16>({255, 0})));
}
TEST(srs_shifts_within_the_documented_range) {
  set_modes(R::floor, S::saturate);
  const aie::accum<acc48, 8> a(ramp<int16, 8>(-4));
  CHECK(lanes_are(a.to_vector<int16>(-1), [](int i) { return 2 * (i - 4); }));
  CHECK(lanes_are(a.to_vector<int16>(aie::detail::max_shift), [](int i) { return i < 4 ? -1 : 0; }));
  CHECK(fails([&a] { a.to_vector<int16>(-2); }));
  CHECK(fails([&a] { a.to_vector<int16>(aie::detail::max_shift + 1); }));
}
TEST(control_registers_are_undefined_at_start) {
  bool differs = false;
  const emulation::control_registers first = emulation::state().registers;
  for (unsigned seed = 2; seed < 20; ++seed) {
    emulation::seed(seed);
    differs = differs || aie::get_rounding() != first.rounding || aie::get_saturation() != first.saturation;
  }
  CHECK(differs);
}
TEST(control_registers_are_swapped) {
  set_modes(R::ceil, S::none);
  CHECK(aie::swap_rounding(R::floor) == R::ceil && aie::get_rounding() == R::floor);
  CHECK(aie::swap_saturation(S::symmetric) == S::none && aie::get_saturation() == S::symmetric);
}

// ------------------------------------------------------ arithmetic [api: Arithmetic]
TEST(add_and_sub_wrap_and_know_no_saturation) {
  set_modes(R::floor, S::saturate);
  CHECK(equal(aie::add(repeat<int8, 16>({127, -128}), repeat<int8, 16>({1, -1})), repeat<int8, 16>({-128, 127})));
  CHECK(equal(aie::sub(repeat<uint8, 16>({3}), repeat<uint8, 16>({5})), repeat<uint8, 16>({254})));
  CHECK(lanes_are(aie::add(ramp<int16, 8>(), int16{5}), [](int i) { return i + 5; }));
  CHECK(lanes_are(aie::sub(int16{5}, ramp<int16, 8>()), [](int i) { return 5 - i; }));
  CHECK(lanes_are(aie::sub(ramp<int32, 8>(), ramp<int32, 8>(2)), [](int) { return -2; }));
  CHECK(lanes_are(aie::add(aie::broadcast<float, 8>(0.5F), 0.25F), [](int) { return 0.75F; }));
}
TEST(max_and_min_respect_the_sign) {
  CHECK(equal(aie::max(repeat<int8, 16>({-1, 3}), repeat<int8, 16>({1, 2})), repeat<int8, 16>({1, 3})));
  CHECK(equal(aie::max(repeat<uint8, 16>({255, 3}), repeat<uint8, 16>({1, 2})), repeat<uint8, 16>({255, 3})));
  CHECK(equal(aie::min(repeat<int16, 16>({-5, 5}), int16{0}), repeat<int16, 16>({-5, 0})));
  auto v = ramp<int16, 8>();
  CHECK(lanes_are(aie::max(v, v[3]), [](int i) { return i < 3 ? 3 : i; }));
}
TEST(neg_and_abs_keep_the_lowest_value) {
  CHECK(equal(aie::neg(repeat<int8, 16>({5, -128})), repeat<int8, 16>({-5, -128})));
  CHECK(equal(aie::abs(repeat<int8, 16>({-5, 7, -128})), repeat<int8, 16>({5, 7, -128})));
  CHECK(equal(aie::abs(repeat<uint8, 16>({200})), repeat<uint8, 16>({200})));
}
template <class A, class B>
concept has_min = requires(A a, B b) { aie::min(a, b); };
template <class A, class B>
concept has_sum = requires(A a, B b) { aie::add(a, b); };
TEST(scalar_operands_have_the_lane_type) {
  CHECK(has_min<aie::vector<int8, 16>, int8> && !has_min<aie::vector<int8, 16>, int>);
}
TEST(accumulators_add_up) {
  aie::accum<acc_int8, 16> a(ramp<int16, 16>());
  CHECK(lanes_are(aie::add(a, ramp<int16, 16>()), [](int i) { return 2 * i; }));
  CHECK(lanes_are(aie::sub(a, ramp<int16, 16>(1)), [](int) { return -1; }));
  CHECK(has_sum<decltype(a), decltype(a)> == !first_generation);  // [ug] AIE has no adder for two accumulators
#if __AIE_ARCH__ != 10
  CHECK(lanes_are(aie::add(a, a), [](int i) { return 2 * i; }));
  CHECK(lanes_are(aie::sub(a, a), [](int) { return 0; }));
#endif
}

// ------------------------------------------------------ comparison [api: Compare]
TEST(comparisons_give_masks) {
  const auto v = ramp<int16, 16>(-8);
  CHECK(aie::lt(v, int16{0}).to_uint32() == 0x00ff);
  CHECK(aie::le(v, int16{0}).to_uint32() == 0x01ff);
  CHECK(aie::gt(v, int16{0}).to_uint32() == 0xfe00);
  CHECK(aie::ge(v, v).full() && aie::neq(v, v).empty());
  CHECK(aie::eq(int16{-8}, v).to_uint32() == 1);
  CHECK(aie::lt(repeat<uint8, 16>({1, 200}), uint8{128}).to_uint32() == 0x5555);
}
TEST(select_takes_the_second_where_the_mask_is_set) {
  const auto m = aie::mask<16>::from_uint32(0x0f0f);
  const auto v = aie::select(repeat<int8, 16>({1}), repeat<int8, 16>({2}), m);
  CHECK(lanes_are(v, [](int i) { return i % 8 < 4 ? 2 : 1; }));
  CHECK(lanes_are(aie::select(int8{0}, v, m), [](int i) { return i % 8 < 4 ? 2 : 0; }));
  CHECK(lanes_are(aie::select(v, int8{0}, m), [](int i) { return i % 8 < 4 ? 0 : 1; }));
}
TEST(max_cmp_tells_which_was_taken) {
  const auto [high, from_b] = aie::max_cmp(ramp<int16, 16>(), repeat<int16, 16>({8}));
  CHECK(lanes_are(high, [](int i) { return i < 8 ? 8 : i; }) && from_b.to_uint32() == 0x00ff);
  const auto [low, from_b_low] = aie::min_cmp(ramp<int16, 16>(), repeat<int16, 16>({8}));
  CHECK(lanes_are(low, [](int i) { return i < 8 ? i : 8; }) && from_b_low.to_uint32() == 0xfe00);
}
TEST(mask_bits_are_set_counted_and_combined) {
  auto m = aie::mask<64>::from_uint64(0xf0000000000000ffULL);
  CHECK(m.count() == 12 && m.test(0) && !m.test(8) && m.test(63) && m.to_uint32(1) == 0xf0000000u);
  CHECK(m.to_uint64() == 0xf0000000000000ffULL);
  m.clear(0);
  m.set(8);
  CHECK(!m.test(0) && m.test(8) && (~m).count() == 52);
  const auto low = aie::mask<64>::from_uint32(0xffffffffu, 0u);
  CHECK((m & low).count() == 8 && (m | low).count() == 36 && (m ^ m).empty());
  CHECK(fails([&m] { m.test(64); }));
}

// ------------------------------------------------------ bits [api, ug]
TEST(bitwise_operations) {
  const auto v = repeat<int16, 16>({0x0f0f, -1});
  CHECK(equal(aie::bit_and(v, int16{0x00ff}), repeat<int16, 16>({0x000f, 0x00ff})));
  CHECK(equal(aie::bit_or(v, repeat<int16, 16>({0x00f0})), repeat<int16, 16>({0x0fff, -1})));
  CHECK(equal(aie::bit_xor(v, v), repeat<int16, 16>({0})));
  CHECK(equal(aie::bit_not(v), repeat<int16, 16>({~0x0f0f, 0})));
}
TEST(downshift_rounds_in_the_current_mode) {
  const auto v = repeat<int16, 16>({7, -7, 6, -6});
  set_modes(R::floor, S::none);
  CHECK(equal(aie::downshift(v, 2), repeat<int16, 16>({1, -2, 1, -2})));
  aie::set_rounding(R::positive_inf);
  CHECK(equal(aie::downshift(v, 2), repeat<int16, 16>({2, -2, 2, -1})));
}
TEST(upshift_saturates_in_the_current_mode) {
  set_modes(R::floor, S::none);
  CHECK(equal(aie::upshift(repeat<int8, 16>({3, 100}), 2), repeat<int8, 16>({12, -112})));
  aie::set_saturation(S::saturate);
  CHECK(fails([] { aie::upshift(ramp<int8, 16>(), 63); }));
  CHECK(equal(aie::upshift(repeat<int8, 16>({3, 100, -100}), 2), repeat<int8, 16>({12, 127, -128})));
}
TEST(logical_downshift_fills_with_zeros) {
  set_modes(R::floor, S::saturate);
  CHECK(equal(aie::logical_downshift(repeat<int16, 16>({-1, 16}), 4), repeat<int16, 16>({0x0fff, 1})));
  CHECK(equal(aie::logical_downshift(repeat<int8, 16>({-128, 16}), 4), repeat<int8, 16>({8, 1})));
}

// ------------------------------------------------------ products [api: mul, mac and msc]
TEST(mul_forms_exact_products) {
  CHECK(lanes_are(aie::mul(repeat<int8, 16>({-128}), repeat<int8, 16>({-128})), [](int) { return 16384; }));
  CHECK(lanes_are(aie::mul(repeat<uint8, 16>({255}), repeat<int8, 16>({-128})), [](int) { return -32640; }));
  CHECK(lanes_are(aie::mul(ramp<int16, 16>(), repeat<int8, 16>({3})), [](int i) { return 3 * i; }));
  CHECK(lanes_are(aie::mul<acc64>(repeat<int32, 8>({-2147483647 - 1}), repeat<int32, 8>({-2147483647 - 1})),
                  [](int) { return int64{1} << 62; }));
}
TEST(mul_takes_scalars_of_their_own_type) {
  CHECK(lanes_are(aie::mul(ramp<int16, 16>(), int16{3}), [](int i) { return 3 * i; }));
  CHECK(lanes_are(aie::mul(int8{-3}, ramp<int16, 16>()), [](int i) { return -3 * i; }));
  const auto v = ramp<int16, 16>();
  CHECK(std::is_same_v<decltype(aie::mul(v, 3)), decltype(aie::mul(v, ramp<int32, 16>()))>);
}
TEST(multiply_accumulate) {
  const auto v = ramp<int16, 16>();
  const auto w = repeat<int16, 16>({-2});
  auto a = aie::negmul(v, w);
  CHECK(lanes_are(a, [](int i) { return 2 * i; }));
  CHECK(lanes_are(aie::mac(a, v, w), [](int) { return 0; }));
  CHECK(lanes_are(aie::msc(a, v, w), [](int i) { return 4 * i; }));
  CHECK(lanes_are(aie::mac(a, v, int16{10}), [](int i) { return 12 * i; }));
  CHECK(lanes_are(aie::msc(a, int16{10}, v), [](int i) { return -8 * i; }));
  CHECK(lanes_are(aie::mul_square(v), [](int i) { return i * i; }));
  CHECK(lanes_are(aie::mac_square(a, v), [](int i) { return 2 * i + i * i; }));
}
TEST(eight_by_thirtytwo_bits_have_no_product) {
  CHECK(!aie::detail::has_product<int8, int32> && aie::detail::has_product<int16, int32>);
}

template <unsigned M, unsigned K, unsigned N, class A, class B, class Tag = accauto>
static bool multiplies() {
  const auto a = ramp<A, M * K>(-5, 3);
  const auto b = ramp<B, K * N>(7, -2);
  aie::mmul<M, K, N, A, B, Tag> product;
  product.mac(a, b);  // the first mac of a fresh object multiplies
  product.mac(a, b);
  bool right = true;
  for (unsigned i = 0; i < M; ++i) {
    for (unsigned j = 0; j < N; ++j) {
      int64 sum = 0;
      for (unsigned k = 0; k < K; ++k) sum += int64{a.lanes[i * K + k]} * b.lanes[k * N + j];
      right = right && product.to_accum().lanes[i * N + j] == 2 * sum;
    }
  }
  product.mul(a, b);
  set_modes(R::floor, S::none);
  const auto again = product.template to_vector<int32>(1);
  return right && again.lanes[0] == static_cast<int32>(product.to_accum().lanes[0] >> 1);
}
TEST(mmul_multiplies_matrices) {
  CHECK(multiplies<4, 8, 8, int8, int8>());
  CHECK(multiplies<4, 8, 8, uint8, int8>());
#if __AIE_ARCH__ == 10
  CHECK(multiplies<4, 4, 4, int16, int16>());
  CHECK(multiplies<8, 8, 1, int16, int16>());
#elif __AIE_ARCH__ == 20
  CHECK(multiplies<4, 4, 4, int16, int16>());
  CHECK(multiplies<4, 4, 8, int16, int8>());
  CHECK(multiplies<4, 2, 4, int32, int16>());
#else
  CHECK(multiplies<8, 8, 8, int8, int8>());
  CHECK(multiplies<4, 2, 8, int16, int16>());
  CHECK(multiplies<4, 4, 8, int16, int16, acc64>());
#endif
}
TEST(mmul_starts_from_an_accumulator) {
  aie::mmul<4, 8, 8, int8, int8> product(aie::zeros<acc_int8, 32>());
  product.mac(repeat<int8, 32>({1}), repeat<int8, 64>({1}));
  CHECK(lanes_are(product.to_accum(), [](int) { return 8; }));
  const aie::mmul<4, 8, 8, int8, int8> fresh;
  CHECK(fails([&fresh] { fresh.to_accum(); }));
}
TEST(mmul_shapes_follow_the_architecture) {
  constexpr auto int8_shape = [](unsigned m, unsigned k, unsigned n) {
    return aie::detail::has_shape<1, 1>({m, k, n});
  };
  CHECK(int8_shape(4, 8, 8) && !int8_shape(4, 4, 4) && !int8_shape(3, 8, 8));
  CHECK(int8_shape(8, 8, 8) == !first_generation);
  CHECK(int8_shape(4, 16, 8) == (__AIE_ARCH__ <= 20));
}

// ------------------------------------------------------ shuffles [api: Reshape]
TEST(shuffle_down_leaves_the_tail_undefined) {
  const auto v = ramp<int16, 16>();
  const auto a = aie::shuffle_down(v, 4);
  const auto b = aie::shuffle_down(v, 4);
  for (unsigned i = 0; i < 12; ++i) CHECK(a.lanes[i] == static_cast<int>(i) + 4);
  CHECK(!equal(a, b));
  CHECK(fails([&v] { aie::shuffle_down(v, 17); }));
}
TEST(shuffle_up_leaves_the_head_undefined) {
  const auto v = ramp<int16, 16>();
  const auto a = aie::shuffle_up(v, 4);
  for (unsigned i = 4; i < 16; ++i) CHECK(a.lanes[i] == static_cast<int>(i) - 4);
  CHECK(!equal(a, aie::shuffle_up(v, 4)));
}
TEST(shuffles_rotate_fill_and_replicate) {
  const auto v = ramp<int16, 16>();
  const auto fill = ramp<int16, 16>(100);
  CHECK(lanes_are(aie::shuffle_down_rotate(v, 3), [](int i) { return (i + 3) % 16; }));
  CHECK(lanes_are(aie::shuffle_up_rotate(v, 3), [](int i) { return (i + 13) % 16; }));
  CHECK(lanes_are(aie::shuffle_down_fill(v, fill, 3), [](int i) { return i < 13 ? i + 3 : 100 + i - 13; }));
  CHECK(lanes_are(aie::shuffle_up_fill(v, fill, 3), [](int i) { return i < 3 ? 113 + i : i - 3; }));
  CHECK(equal(aie::shuffle_up_rotate(v, 16), v) && fails([&] { aie::shuffle_down_fill(v, fill, 16); }));
  CHECK(lanes_are(aie::shuffle_down_replicate(v, 3), [](int i) { return i < 13 ? i + 3 : 15; }));
  CHECK(lanes_are(aie::shuffle_up_replicate(v, 3), [](int i) { return i < 3 ? 0 : i - 3; }));
}
TEST(reverse_and_transpose) {
  CHECK(lanes_are(aie::reverse(ramp<int16, 8>()), [](int i) { return 7 - i; }));
  // rows 0 1 2 3 / 4 5 6 7 become columns
  CHECK(equal(aie::transpose(ramp<int16, 8>(), 2, 4), repeat<int16, 8>({0, 4, 1, 5, 2, 6, 3, 7})));
  CHECK(equal(aie::transpose(aie::transpose(ramp<int8, 32>(), 4, 8), 8, 4), ramp<int8, 32>()));
  CHECK(fails([] { aie::transpose(ramp<int16, 8>(), 2, 2); }));
}
TEST(interleave_zip_alternates_chunks) {
  const auto a = ramp<int16, 8>();
  const auto b = ramp<int16, 8>(10);
  auto [low, high] = aie::interleave_zip(a, b, 1);
  CHECK(equal(low, repeat<int16, 8>({0, 10, 1, 11, 2, 12, 3, 13})));
  CHECK(equal(high, repeat<int16, 8>({4, 14, 5, 15, 6, 16, 7, 17})));
  std::tie(low, high) = aie::interleave_zip(a, b, 4);
  CHECK(equal(low, repeat<int16, 8>({0, 1, 2, 3, 10, 11, 12, 13})));
  std::tie(low, high) = aie::interleave_zip(a, b, 8);
  CHECK(equal(low, a) && equal(high, b));
  CHECK(fails([&] { aie::interleave_zip(a, b, 3); }));
}
TEST(interleave_unzip_is_the_way_back) {
  const auto a = ramp<int16, 8>();
  const auto b = ramp<int16, 8>(10);
  for (unsigned chunk = 1; chunk <= 8; chunk *= 2) {
    const auto [low, high] = aie::interleave_zip(a, b, chunk);
    const auto [back_a, back_b] = aie::interleave_unzip(low, high, chunk);
    CHECK(equal(back_a, a) && equal(back_b, b));
  }
}
TEST(filters_take_every_second_chunk) {
  const auto v = ramp<int16, 16>();
  CHECK(lanes_are(aie::filter_even(v), [](int i) { return 2 * i; }));
  CHECK(lanes_are(aie::filter_odd(v), [](int i) { return 2 * i + 1; }));
  CHECK(equal(aie::filter_even(v, 4), repeat<int16, 8>({0, 1, 2, 3, 8, 9, 10, 11})));
  CHECK(equal(aie::filter_odd(v, 4), repeat<int16, 8>({4, 5, 6, 7, 12, 13, 14, 15})));
  CHECK(equal(aie::filter_odd(v, 8), ramp<int16, 8>(8)));
}

// ------------------------------------------------------ reductions [api: Reduce]
TEST(reductions) {
  const auto v = repeat<int8, 64>({3, -128, 5, 127, 0, 1, 2, 4});
  CHECK(aie::reduce_max(v) == 127 && aie::reduce_min(v) == -128);
  CHECK(aie::reduce_add(ramp<int16, 16>()) == 120 && aie::reduce_add(ramp<int32, 32>(-16)) == -16);
  CHECK(aie::reduce_max(repeat<uint8, 16>({255, 1})) == 255);
}
TEST(reduce_add_is_undefined_when_it_does_not_fit) {
  const auto v = repeat<int8, 32>({127});
  int8 first = aie::reduce_add(v);
  bool differs = false;
  for (int i = 0; i < 8; ++i) differs = differs || aie::reduce_add(v) != first;
  CHECK(differs);
  CHECK(aie::reduce_add(repeat<int32, 4>({2147483647, 1, 0, 0})) == -2147483647 - 1);
}

// ------------------------------------------------------ memory [api: Memory]
TEST(load_and_store_need_alignment) {
  alignas(128) int8 memory[256] = {};
  for (int i = 0; i < 256; ++i) memory[i] = static_cast<int8>(i);
  const unsigned strictest = __AIE_ARCH__ == 10 ? 16 : __AIE_ARCH__ == 20 ? 32 : 64;
  CHECK(aie::vector_decl_align == strictest);
  CHECK(equal(aie::load_v<64>(memory + strictest), ramp<int8, 64>(static_cast<int>(strictest))));
  CHECK(fails([&memory] { aie::load_v<64>(memory + strictest / 2); }));
  CHECK(equal(aie::load_v<16>(memory + 16), ramp<int8, 16>(16)));
  CHECK(fails([&memory] { aie::load_v<16>(memory + 8); }));
  CHECK(aie::store_v(memory, aie::zeros<int8, 32>()) == memory && memory[31] == 0 && memory[32] == 32);
  CHECK(fails([&memory] { aie::store_v(memory + 8, aie::zeros<int8, 32>()); }));
}
TEST(unaligned_access_goes_anywhere) {
  alignas(128) int16 memory[64] = {};
  aie::store_unaligned_v(memory + 3, ramp<int16, 16>(1));
  CHECK(memory[2] == 0 && memory[3] == 1 && memory[18] == 16 && memory[19] == 0);
  CHECK(equal(aie::load_unaligned_v<16>(memory + 3), ramp<int16, 16>(1)));
  CHECK(fails([&memory] { aie::load_unaligned_v<16>(memory + 3, 8); }));
  CHECK(aie::load_floor_v<8>(memory + 11).lanes[0] == memory[8]);
}
TEST(iterators_step_by_vectors) {
  alignas(128) int16 memory[64];
  auto out = aie::begin_vector<16>(memory);
  for (int i = 0; i < 4; ++i) *out++ = ramp<int16, 16>(16 * i);
  auto in = aie::cbegin_vector<16>(memory);
  CHECK(equal(*in++, ramp<int16, 16>()) && equal(*in, ramp<int16, 16>(16)) && equal(in[2], ramp<int16, 16>(48)));
  in += 2;
  CHECK(in == aie::cbegin_vector<16>(memory) + 3 && equal(*--in, ramp<int16, 16>(32)));
  const aie::vector<int16, 16> last = *aie::begin_restrict_vector<16>(memory + 48);
  CHECK(equal(last, ramp<int16, 16>(48)));
  auto copy = aie::begin_vector<16>(memory);
  copy[3] = *aie::begin_vector<16>(memory);
  CHECK(memory[48] == 0 && memory[63] == 15);
  CHECK(equal(*aie::cbegin_restrict_vector<16>(memory + 16), ramp<int16, 16>(16)));
  auto around = aie::cbegin_vector_circular<16, 32>(memory);
  ++around;
  CHECK(equal(*around++, ramp<int16, 16>(16)) && equal(*around, ramp<int16, 16>()));
  auto write_around = aie::begin_vector_circular<16, 32>(memory);
  for (int i = 0; i < 3; ++i) *write_around++ = ramp<int16, 16>(i);
  CHECK(memory[0] == 2 && memory[16] == 1 && memory[32] == 32);
}

// ------------------------------------------------------ floating point [api: Floating-point Conversion]
TEST(inv_is_not_exact) {
  const aie::vector<float, 8> threes = aie::broadcast<float, 8>(3.0F);
  bool differs = false;
  for (int i = 0; i < 4; ++i) {
    for (float x : aie::inv(threes).lanes) {
      differs = differs || x != 1.0F / 3.0F;
      CHECK(x > 0.333F && x < 0.334F);
    }
  }
  CHECK(differs);
  emulation::state().inv_noise = 0;
  CHECK(aie::inv(4.0F) == 0.25F && aie::invsqrt(16.0F) == 0.25F);
  CHECK(lanes_are(aie::invsqrt(aie::broadcast<float, 8>(4.0F)), [](int) { return 0.5F; }));
}
TEST(floats_convert_by_powers_of_two) {
  CHECK(lanes_are(aie::to_float(ramp<int32, 8>(), 2), [](int i) { return static_cast<float>(i) / 4; }));
  const aie::vector<float, 8> halves = aie::to_float(ramp<int32, 8>(), 1);
  CHECK(equal(aie::to_fixed<int32>(halves), repeat<int32, 8>({0, 0, 1, 2, 2, 2, 3, 4})));  // ties to even
  CHECK(lanes_are(aie::to_fixed<int16>(halves, 1), [](int i) { return i; }));
  CHECK(aie::to_fixed(2.5F) == 2 && aie::to_float(3, 1) == 1.5F);
}

// ------------------------------------------------------ scalars [ug]
TEST(clb_counts_leading_sign_bits) {
  CHECK(clb(1) == 31 && clb(0) == 32 && clb(-1) == 32 && clb(-2) == 31 && clb(255) == 24 && clb(2147483647) == 1);
  CHECK(clb(0x80000000u) == 0 && clb(1u) == 31);
  event0();
  event1();
}

// ------------------------------------------------------ operation counters
TEST(operations_are_counted_by_slot) {
  alignas(128) int8 memory[128] = {};
  const auto v = aie::load_v<64>(memory);
  CHECK(emulation::counters().load == (__AIE_ARCH__ >= 21 ? 1 : 2));
  const emulation::operation_counts before = emulation::counters();
  aie::vector<int16, 64> w = v.unpack();
  w = aie::max(w, w);
  CHECK(emulation::counters().move == before.move + 4);
  w = aie::max(w, int16{0});
  CHECK(emulation::counters().broadcast == 2 && emulation::counters().move == before.move + 6);
  const auto a = aie::mul(w, w);
  CHECK(emulation::counters().multiply == (first_generation ? 4 : 2));
  aie::store_v(memory, a.to_vector<int8>());
  CHECK(emulation::counters().srs == 1 && emulation::counters().store == before.load && emulation::counters().pad == 0);
  aie::mul(ramp<int32, 32>(), ramp<int16, 32>());
  CHECK(emulation::counters().multiply == (first_generation ? 6 : __AIE_ARCH__ == 20 ? 4 : 3));
  aie::mul(v, v);
  CHECK(emulation::counters().pad == (first_generation ? 0 : __AIE_ARCH__ == 20 ? 2 : 1));
  CHECK(v.get(0) == 0 && emulation::counters().lane == 1 && clb(1) == 31 && emulation::counters().scalar == 1);
  const emulation::operation_counts until = emulation::counters();
  aie::interleave_zip(v, v, 2);
  CHECK(emulation::counters().move == until.move + 2 && emulation::counters().lane == until.lane);
  aie::interleave_zip(v, v, 1);  // of 8 bits: one by one on AIE
  CHECK(emulation::counters().lane == until.lane + (first_generation ? 256 : 0));
  aie::shuffle_down_rotate(v, 8);  // there, widened to 16 bits and packed again
  CHECK(emulation::counters().move == until.move + (first_generation ? 2 + 6 : 4 + 1));
  emulation::reset_counters();
  CHECK(emulation::counters() == emulation::operation_counts{});
}

CHECKS_MAIN
