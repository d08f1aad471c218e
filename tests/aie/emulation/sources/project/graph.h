#pragma once
#include <adf.h>

#include <string>

#include "kernels.h"

constexpr unsigned tiles = 3;

// As project writers put it: arrays of ports and kernels, everything placed.
class scaling_graph : public adf::graph {
 public:
  adf::input_plio x[tiles];
  adf::output_plio y[tiles];
  adf::port<adf::direction::in> parameters[tiles];

  scaling_graph() {
    for (unsigned t = 0; t < tiles; ++t) {
      const std::string number = std::to_string(t);
      const int column = static_cast<int>(t);
      x[t] = adf::input_plio::create("x_" + number, adf::plio_128_bits, "data/x_" + number + ".txt");
      y[t] = adf::output_plio::create("y_" + number, adf::plio_128_bits, "y_" + number + ".txt");
      kernel_[t] = adf::kernel::create(scale);
      adf::source(kernel_[t]) = "kernels.cc";
      adf::runtime<adf::ratio>(kernel_[t]) = 1.0;
      adf::connect(x[t].out[0], kernel_[t].in[0]);
      adf::connect(kernel_[t].out[0], y[t].in[0]);
      adf::connect<adf::parameter>(parameters[t], adf::async(kernel_[t].in[1]));
      adf::dimensions(kernel_[t].in[0]) = {64};
      adf::dimensions(kernel_[t].out[0]) = {64};
      adf::location<adf::kernel>(kernel_[t]) = adf::tile(column, 0);
      adf::location<adf::buffer>(kernel_[t].in[0]) = {adf::address(column, 0, 0x0), adf::address(column, 0, 0x4000)};
      adf::location<adf::buffer>(kernel_[t].out[0]) = adf::bank(column, 0, 2);
      adf::location<adf::stack>(kernel_[t]) = adf::bank(column, 0, 3);
    }
  }

 private:
  adf::kernel kernel_[tiles];
};
