// Graphs: ports, parameters, PLIO files, and what a graph or a kernel must not do.
#include <adf.h>

#include <aie_api/aie_adf.hpp>
#include <memory>
#include <string>

#include "checks.h"

using checks::fails;

static void write_file(const char* name, const std::string& text) {
  const adf::detail::file_handle file = adf::detail::open_file(name, "w");
  std::fputs(text.c_str(), file.get());
}
static std::string read_file(const std::string& name) {
  const adf::detail::file_handle file = adf::detail::open_file(name, "r");
  std::string text;
  for (int c; (c = std::fgetc(file.get())) != EOF;) text.push_back(static_cast<char>(c));
  return text;
}
// lines x in_line numbers: first, first + 1, ...
static std::string beats(int lines, int in_line, int first = 0) {
  std::string text;
  for (int i = 0; i < lines * in_line; ++i) text += std::to_string(first + i) + ((i + 1) % in_line == 0 ? "\n" : " ");
  return text;
}
static std::string output() {
  return read_file("x86simulator_output/out.txt");
}

// --------------------------------------------------------------- kernels
static void add_parameters(adf::input_buffer<int8>& in, adf::output_buffer<int16>& out, const int32 (&parameters)[3]) {
  auto from = aie::cbegin_vector<16>(in);
  auto to = aie::begin_vector<16>(out);
  for (std::size_t i = 0; i < in.size() / 16; ++i) {
    *to++ = aie::add(aie::unpack(*from++), static_cast<int16>(parameters[0] + parameters[2]));
  }
}
static void copy(adf::input_buffer<int8, adf::extents<16>>& in, adf::output_buffer<int8, adf::extents<16>>& out) {
  aie::store_v(out.data(), aie::load_v<16>(in.data()));
}
static void scale(adf::input_buffer<int16>& in, adf::output_buffer<int16>& out, int16 factor, int32& runs) {
  for (std::size_t i = 0; i < in.size(); ++i) out.data()[i] = static_cast<int16>(in.data()[i] * factor);
  ++runs;
}
static void write_behind(adf::input_buffer<int8>& in, adf::output_buffer<int8>& out) {
  out.data()[in.size()] = 1;
}
static void write_before(adf::input_buffer<int8>& in, adf::output_buffer<int8>&) {
  in.data()[-1] = 1;
}
static void write_half(adf::input_buffer<int8>&, adf::output_buffer<int8>& out) {
  for (std::size_t i = 0; i < out.size() / 2; ++i) out.data()[i] = 1;
}
static void ones(adf::output_buffer<int8, adf::extents<16>>& out) {
  aie::store_v(out.data(), aie::broadcast<int8, 16>(1));
}
static void load_parameters(adf::input_buffer<int8>&, adf::output_buffer<int8>&, const int32 (&parameters)[4]) {
  aie::load_v<4>(parameters);
}
static void set_ceil(adf::input_buffer<int8>&, adf::output_buffer<int8>& out) {
  aie::set_rounding(aie::rounding_mode::ceil);
  for (std::size_t i = 0; i < out.size(); ++i) out.data()[i] = 0;
}
static void sum_pairs(input_stream<int32>* in, output_stream<int32>* out) {
  const aie::vector<int32, 4> v = readincr_v<4>(in);
  writeincr(out, v.get(0) + v.get(1));
  writeincr(out, v.get(2) + v.get(3));
}
static void last_first(input_stream<int32>* in, output_stream<int32>* out) {
  const int32 first = readincr(in);
  writeincr(out, readincr(in));
  writeincr(out, first);
}
static void locked_copy(adf::input_async_buffer<int8>& in, adf::output_async_buffer<int8>& out) {
  in.acquire();
  out.acquire();
  for (std::size_t i = 0; i < in.size(); ++i) out.data()[i] = in.data()[i];
  in.release();
  out.release();
}
class counting_kernel {
 public:
  explicit counting_kernel(int8 first) : next_(first) { aie::set_saturation(aie::saturation_mode::symmetric); }
  void run(adf::input_buffer<int8>& in, adf::output_buffer<int8>& out) {
    if (aie::get_saturation() != aie::saturation_mode::symmetric) emulation::fail("the mode set at start is lost");
    for (std::size_t i = 0; i < in.size(); ++i) out.data()[i] = next_++;
  }
  static void registerKernelClass() { REGISTER_FUNCTION(counting_kernel::run); }

 private:
  int8 next_;
};

// One kernel between two PLIOs of 64 bits; samples 0 leaves the sizes to the kernel's extents.
class single : public adf::graph {
 public:
  adf::kernel k;
  adf::input_port parameters;

  explicit single(adf::kernel kernel, unsigned samples = 16) : k(std::move(kernel)) {
    in_ = adf::input_plio::create("in", adf::plio_64_bits, "in.txt", 250.0);
    out_ = adf::output_plio::create(adf::plio_64_bits, "out.txt");
    adf::source(k) = "kernel.cpp";
    adf::runtime<adf::ratio>(k) = 0.9;
    adf::location<adf::kernel>(k) = adf::tile(3, 1);
    adf::location<adf::stack>(k) = adf::bank(3, 1, 2);
    adf::location<adf::PLIO>(in_) = adf::shim(3);
    adf::location<adf::PLIO>(out_) = adf::shim(4, 1);
    adf::headers(k) = {"kernel.h"};
    adf::stack_size(k) = 2048;
    adf::heap_size(k) = 1024;
    adf::connect(in_.out[0], k.in[0]);
    adf::connect(k.out[0], out_.in[0]);
    if (samples != 0) {
      adf::dimensions(k.in[0]) = {samples};
      adf::dimensions(k.out[0]) = {samples / 2, 2};
      adf::location<adf::buffer>(k.in[0]) = {adf::bank(3, 1, 0), adf::bank(3, 1, 1)};
      adf::single_buffer(k.out[0]);
    }
  }

 protected:
  adf::input_plio in_;
  adf::output_plio out_;
};
static std::unique_ptr<single> make(void (*kernel)(adf::input_buffer<int8>&, adf::output_buffer<int8>&)) {
  return std::make_unique<single>(adf::kernel::create(kernel));
}
static std::unique_ptr<single> make_with_parameters(bool asynchronous = true) {
  auto graph = std::make_unique<single>(adf::kernel::create(add_parameters));
  asynchronous ? adf::async(graph->k.in[1]) : adf::sync(graph->k.in[1]);
  adf::connect<adf::parameter> net(graph->parameters, graph->k.in[1]);
  return graph;
}

// --------------------------------------------------------------- running
TEST(graph_runs_kernel_with_parameters) {
  write_file("in.txt", beats(4, 8, -20));
  const auto graph = make_with_parameters();
  const int32 parameters[] = {100, -1, 20};
  graph->init();
  graph->update(graph->parameters, parameters, 3);
  graph->run(2);
  graph->end();
  CHECK(output() == beats(8, 4, 100));
}
TEST(graph_keeps_parameters_between_runs_when_asynchronous) {
  write_file("in.txt", beats(4, 8));
  const auto graph = make_with_parameters();
  const int32 parameters[] = {1, 0, 0}, others[] = {2, 0, 0};
  graph->init();
  graph->update(graph->parameters, parameters, 3);
  graph->run(1);
  graph->update(graph->parameters, others, 3);
  graph->run(1);
  graph->wait();
  CHECK(output() == beats(4, 4, 1) + beats(4, 4, 18));
}
TEST(graph_wants_a_parameter_a_run_when_synchronous) {
  write_file("in.txt", beats(4, 8));
  const auto graph = make_with_parameters(false);
  const int32 parameters[] = {1, 0, 0};
  graph->init();
  graph->update(graph->parameters, parameters, 3);
  graph->run(1);
  CHECK(fails([&graph] { graph->run(1); }));
}
TEST(graph_chains_kernels_broadcasts_and_reads_parameters) {
  class chain : public adf::graph {
   public:
    adf::kernel first, second, third;
    adf::input_port parameters, factor;
    adf::inout_port runs;
    chain() {
      in_ = adf::input_plio::create("in", adf::plio_32_bits, "in.txt");
      out_[0] = adf::output_plio::create("out", adf::plio_128_bits, "out.txt");
      out_[1] = adf::output_plio::create("copy", adf::plio_128_bits, "copies/out.txt");
      first = adf::kernel::create(add_parameters);
      second = adf::kernel::create(scale);
      third = adf::kernel::create(copy);
      for (adf::kernel* k : {&first, &second, &third}) adf::runtime<adf::ratio>(*k) = 0.5;
      adf::dimensions(first.in[0]) = {32};
      adf::dimensions(first.out[0]) = {32};
      adf::dimensions(second.in[0]) = {16};
      adf::dimensions(second.out[0]) = {16};
      adf::repetition_count(second) = 2;
      adf::repetition_count(third) = 2;
      adf::connect<>(in_.out[0], first.in[0]);
      adf::connect<>(in_.out[0], third.in[0]);
      adf::connect<> net(first.out[0], second.in[0]);
      adf::fifo_depth(net) = 4;
      adf::connect<>(second.out[0], out_[0].in[0]);
      adf::connect<>(third.out[0], out_[1].in[0]);
      adf::connect<adf::parameter>(parameters, adf::async(first.in[1]));
      adf::connect<adf::parameter>(factor, adf::async(second.in[1]));
      adf::connect<adf::parameter>(second.inout[0], runs);
    }

   private:
    adf::input_plio in_;
    adf::output_plio out_[2];
  } graph;
  write_file("in.txt", beats(8, 4));
  const int32 parameters[] = {1, 0, 0};
  graph.init();
  graph.update(graph.parameters, parameters, 3);
  graph.update(graph.factor, int16{1});
  graph.run(1);
  int32 runs = -1;
  graph.read(graph.runs, runs);
  graph.end();
  CHECK(runs == 2);
  CHECK(output() == beats(4, 8, 1));
  CHECK(read_file("x86simulator_output/copies/out.txt") == beats(2, 16));
}
TEST(graph_runs_kernel_objects_and_constructs_them_on_their_core) {
  write_file("in.txt", beats(4, 8));
  single graph(adf::kernel::create_object<counting_kernel>(int8{5}));
  graph.init();
  graph.run();
  graph.end();
  CHECK(output() == beats(4, 8, 5));
}
TEST(graph_runs_stream_kernels) {
  write_file("in.txt", "1 2\n3 4\n\n5 6 TLAST\nT 120 ns\n7 8\n");
  CHECK(std::is_same_v<adf::input_stream<int32>, input_stream<int32>>);
  single graph(adf::kernel::create(sum_pairs), 0);
  graph.init();
  graph.run(2);
  graph.end();
  CHECK(output() == "3 7\n11 15\n");
}
TEST(graph_runs_kernels_that_read_streams_by_element) {
  write_file("in.txt", "1 2\n3 4\n");
  single graph(adf::kernel::create(last_first), 0);
  graph.init();
  graph.run(2);
  CHECK(fails([&graph] { graph.run(1); }));  // the stream is empty
  graph.end();
  CHECK(output() == "2 1\n4 3\n");
}
TEST(graph_runs_kernels_with_locked_buffers) {
  write_file("in.txt", beats(2, 8));
  const auto graph = make(locked_copy);
  graph->init();
  graph->run(1);
  graph->end();
  CHECK(output() == beats(2, 8));
}
TEST(kernels_do_not_share_control_registers) {
  write_file("in.txt", beats(2, 8));
  const auto graph = make(set_ceil);
  aie::set_rounding(aie::rounding_mode::floor);
  graph->init();
  graph->run(1);
  CHECK(aie::get_rounding() == aie::rounding_mode::floor);
}
TEST(buffers_are_undefined_before_the_kernel_writes) {
  write_file("in.txt", beats(4, 8));
  const auto graph = make(write_half);
  graph->init();
  graph->run(2);
  graph->end();
  const std::string text = output();
  CHECK(text.substr(0, 16) == "1 1 1 1 1 1 1 1\n" && text.substr(16, 16) != "1 1 1 1 1 1 1 1\n");
  CHECK(text.find(text.substr(16, 16), 17) == std::string::npos);
}
TEST(buffers_are_aligned_no_better_than_promised) {
  emulation::guarded_memory memory(100);
  const auto address = reinterpret_cast<std::uintptr_t>(memory.data());
  CHECK(address % aie::vector_decl_align == 0 && address % (2 * aie::vector_decl_align) != 0);
}
TEST(operations_are_counted_a_kernel) {
  write_file("in.txt", beats(4, 8));
  single graph(adf::kernel::create(copy), 0);
  emulation::reset_counters();
  graph.init();
  graph.run(2);
  CHECK(graph.k.node->counts.load == 2 && graph.k.node->counts.store == 2 && graph.k.node->runs == 2);
  CHECK(emulation::counters().load == 2);
  graph.end();
}

TEST(environment_names_folders_and_report) {
  setenv("AIE_EMULATION_INPUT_DIR", "inputs", 1);
  setenv("AIE_EMULATION_OUTPUT_DIR", "results", 1);
  setenv("AIE_EMULATION_REPORT", "report.json", 1);  // read by the test's caller
  adf::detail::make_parents("inputs/in.txt");
  write_file("inputs/in.txt", beats(4, 8));
  single graph(adf::kernel::create(copy), 0);
  graph.init();
  graph.run(2);
  graph.end();
  CHECK(read_file("results/out.txt") == beats(4, 8));
  for (const char* name : {"AIE_EMULATION_INPUT_DIR", "AIE_EMULATION_OUTPUT_DIR", "AIE_EMULATION_REPORT"}) {
    unsetenv(name);
  }
}

// --------------------------------------------------------------- what must not be
TEST(kernel_must_not_write_outside_of_its_buffers) {
  write_file("in.txt", beats(2, 8));
  for (const auto kernel : {write_behind, write_before}) {
    const auto graph = make(kernel);
    graph->init();
    CHECK(fails([&graph] { graph->run(1); }));
  }
}
TEST(errors_name_the_kernel_and_its_tile) {
  write_file("in.txt", beats(4, 8));
  const auto graph = make(write_behind);
  graph->init();
  const std::string expected =
      "AIE emulation: kernel.cpp on tile (3, 1), run 0: a kernel wrote outside of its output buffer";
  try {
    graph->run(1);
    CHECK(false);
  } catch (const emulation::error& e) {
    CHECK(e.what() == expected);
  }
}
TEST(parameters_are_aligned_as_their_elements) {
  write_file("in.txt", beats(2, 8));
  single graph(adf::kernel::create(load_parameters));
  adf::connect<adf::parameter>(graph.parameters, adf::async(graph.k.in[1]));
  const int32 parameters[4] = {};
  graph.init();
  graph.update(graph.parameters, parameters, 4);
  CHECK(fails([&graph] { graph.run(1); }));
}
TEST(graph_needs_parameters_of_the_right_size_and_type) {
  write_file("in.txt", beats(2, 8));
  const auto graph = make_with_parameters();
  const int32 parameters[4] = {};
  CHECK(fails([&] { graph->update(graph->parameters, parameters, 3); }));  // before init()
  graph->init();
  CHECK(fails([&] { graph->run(1); }));  // not set
  CHECK(fails([&] { graph->update(graph->parameters, parameters, 4); }));
  CHECK(fails([&] { graph->update(graph->parameters, reinterpret_cast<const float*>(parameters), 3); }));
}
TEST(graph_needs_enough_data) {
  write_file("in.txt", beats(3, 8));
  const auto graph = make(set_ceil);
  graph->init();
  CHECK(fails([&graph] { graph->run(2); }));
}
TEST(graph_needs_connections_sizes_and_runtime_ratios) {
  write_file("in.txt", beats(2, 8));
  {
    single graph(adf::kernel::create(write_half), 0);
    graph.init();
    CHECK(fails([&graph] { graph.run(1); }));  // no size
  }
  {
    const auto graph = make(write_half);
    graph->k.in[0].end->driver = nullptr;
    CHECK(fails([&graph] { graph->init(); }));
  }
  {
    const auto graph = make(write_half);
    adf::runtime<adf::ratio>(graph->k) = 0;
    CHECK(fails([&graph] { graph->init(); }));
  }
  {
    const auto graph = make(write_half);
    adf::output_port other;
    CHECK(fails([&] { adf::connect<>(other, graph->k.in[0]); }));
    CHECK(fails([&graph] { graph->k.in[1]; }));
  }
  {
    const auto graph = make(write_half);
    adf::kernel loose = adf::kernel::create(write_half);
    adf::runtime<adf::ratio>(loose) = 0.5;
    adf::connect<>(graph->k.out[0], loose.in[0]);
    CHECK(fails([&graph] { graph->init(); }));
  }
}
TEST(kernels_without_inputs_run_a_given_number_of_times) {
  class generator : public adf::graph {
   public:
    generator() {
      k_ = adf::kernel::create(ones);
      adf::runtime<adf::ratio>(k_) = 0.1;
      out_ = adf::output_plio::create("out", adf::plio_64_bits, "out.txt");
      adf::connect<>(k_.out[0], out_.in[0]);
    }

   private:
    adf::kernel k_;
    adf::output_plio out_;
  } graph;
  graph.init();
  CHECK(fails([&graph] { graph.run(); }));
  graph.run(2);
  graph.end();
  CHECK(output() == "1 1 1 1 1 1 1 1\n1 1 1 1 1 1 1 1\n1 1 1 1 1 1 1 1\n1 1 1 1 1 1 1 1\n");
}
TEST(dimensions_must_agree_with_extents) {
  write_file("in.txt", beats(2, 8));
  single graph(adf::kernel::create(copy), 32);
  graph.init();
  CHECK(fails([&graph] { graph.run(1); }));
}
TEST(tiles_are_not_loaded_beyond_their_time) {
  write_file("in.txt", beats(2, 8));
  const auto first = make(write_half);
  const auto second = make(write_half);
  CHECK(fails([&first] { first->init(); }));
  adf::location<adf::kernel>(second->k) = adf::tile(4, 1);
  first->init();
}
TEST(buffers_lie_apart_in_a_tiles_memory) {
  write_file("in.txt", beats(2, 8));
  const auto graph = make(write_half);  // buffers of 16 bytes
  const auto place = [&graph](int in, int out) {
    adf::location<adf::buffer>(graph->k.in[0]) = {adf::address(4, 1, in), adf::address(4, 1, in + 64)};
    adf::location<adf::buffer>(graph->k.out[0]) = adf::address(4, 1, out);
  };
  place(0, 16);
  graph->init();
  place(0, 64 + 15);
  CHECK(fails([&graph] { graph->init(); }));
  adf::location<adf::buffer>(graph->k.out[0]) = adf::address(4, 2, 64 + 15);  // another tile
  graph->init();
  const int last = (__AIE_ARCH__ == 10 ? 32768 : 65536) - 16;
  place(0, last);
  graph->init();
  place(0, last + 4);
  CHECK(fails([&graph] { graph->init(); }));
  adf::location<adf::buffer>(graph->k.out[0]) = adf::bank(4, 1, 3);  // its address is the compiler's choice
  graph->init();
}
TEST(buffers_are_whole_words) {
  write_file("in.txt", beats(9, 8));
  single graph(adf::kernel::create(write_half), 18);
  graph.init();
  CHECK(fails([&graph] { graph.run(1); }));
}
TEST(plio_files_hold_whole_beats_of_legal_values) {
  const auto graph = make(write_half);
  for (const char* text :
       {"1 2 3\n", "1 2 3 4 5 6 7 8 9\n", "1 2 3 4 5 6 7 128\n", "1 2 3 4 5 6 7 x\n", "1 2 3 4 5 6 7 0x8\n"}) {
    write_file("in.txt", text);
    CHECK(fails([&graph] { graph->init(); }));
  }
  std::remove("in.txt");
  CHECK(fails([&graph] { graph->init(); }));
}

CHECKS_MAIN
