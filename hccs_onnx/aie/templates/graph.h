// One kernel a tile, each with a port from logic, a port to logic, and parameters that can be changed while it runs.
#pragma once
#include <adf.h>

#include <string>

#include "kernels.h"
#include "plan.h"

class HccsGraph : public adf::graph {
 public:
  adf::input_plio x[plan::tiles];
  adf::output_plio y[plan::tiles];
  adf::port<adf::direction::in> params[plan::tiles];

  HccsGraph() {
    for (unsigned t = 0; t < plan::tiles; ++t) {
      const std::string number = std::to_string(t);
      x[t] = adf::input_plio::create("x_" + number, adf::plio_@PORT_BITS@_bits, "data/x_" + number + ".txt");
      y[t] = adf::output_plio::create("y_" + number, adf::plio_@PORT_BITS@_bits, "y_" + number + ".txt");

      kernel[t] = adf::kernel::create(hccs_tile);
      adf::source(kernel[t]) = "kernels.cc";
      adf::runtime<adf::ratio>(kernel[t]) = 1.0;
      adf::stack_size(kernel[t]) = plan::stack_bytes;

      adf::connect(x[t].out[0], kernel[t].in[0]);
      adf::connect(kernel[t].out[0], y[t].in[0]);
      adf::connect<adf::parameter>(params[t], adf::async(kernel[t].in[1]));
      adf::dimensions(kernel[t].in[0]) = {plan::codes};
      adf::dimensions(kernel[t].out[0]) = {plan::codes};

      const unsigned column = plan::place[t].column, row = plan::place[t].row;
      adf::location<adf::kernel>(kernel[t]) = adf::tile(column, row);
      adf::location<adf::buffer>(kernel[t].in[0]) = {adf::address(column, row, plan::input_address[0]),
                                                     adf::address(column, row, plan::input_address[1])};
      adf::location<adf::buffer>(kernel[t].out[0]) = {adf::address(column, row, plan::output_address[0]),
                                                      adf::address(column, row, plan::output_address[1])};
    }
  }

 private:
  adf::kernel kernel[plan::tiles];
};
