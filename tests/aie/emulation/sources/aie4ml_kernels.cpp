// Runs aie4ml's HCCS kernels, as installed, in a graph of their own class between two PLIO files:
//   aie4ml_kernels CONFIG B S Dmax ITERATIONS
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>

#include "parameters.h"
//
#include "softmax.cpp"
#include "softmax_graph.h"

template <class Config>
class top_graph : public adf::graph {
 public:
  top_graph() {
    in_ = adf::input_plio::create("in", adf::plio_64_bits, "in.txt");
    out_ = adf::output_plio::create("out", adf::plio_128_bits, "out.txt");
    adf::connect<>(in_.out[0], softmax_.in1[0]);
    adf::connect<>(softmax_.out1[0], out_.in[0]);
    softmax_.place_graph(3, 1);
  }

 private:
  adf::input_plio in_;
  adf::output_plio out_;
  softmax_hccs_graph<Config> softmax_;
};

template <class Config>
bool run(const char* name, char** arguments) {
  if (std::strcmp(name, arguments[1]) != 0) return false;
  Config::B[0] = static_cast<int16>(std::atoi(arguments[2]));
  Config::S[0] = static_cast<int8>(std::atoi(arguments[3]));
  Config::Dmax[0] = static_cast<uint8>(std::atoi(arguments[4]));
  const auto graph = std::make_unique<top_graph<Config>>();
  graph->init();
  graph->run(std::atoi(arguments[5]));
  graph->end();
  return true;
}

int main(int count, char** arguments) {
  if (count != 6) return 2;
  bool found = false;
#define RUN(name, ...) found = found || run<config<__VA_ARGS__>>(name, arguments);
  RUN("linear-uint8-div", uint8, 8, 64, false)
  RUN("linear-uint8-clb", uint8, 8, 32, true)
  RUN("linear-int16-div", int16, 8, 128, false)
  RUN("linear-int16-clb", int16, 4, 96, true)
  RUN("tiled-uint8-div", uint8, 8, 64, false, 4, 8)
  RUN("tiled-uint8-clb", uint8, 16, 64, true, 8, 8)
  RUN("tiled-int16-div", int16, 8, 128, false, 2, 8)
  RUN("tiled-int16-clb", int16, 8, 32, true, 4, 16)
  RUN("transposed-uint8-clb", uint8, 8, 64, true, 4, 8, true)
  RUN("transposed-int16-div", int16, 8, 64, false, 8, 8, true)
  return found ? 0 : 2;
}
