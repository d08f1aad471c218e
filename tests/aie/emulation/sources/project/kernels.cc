#include "kernels.h"

#include <aie_api/aie.hpp>

// y = min(x * parameters[0] >> parameters[1], 32767), 32 at a time.
void scale(adf::input_buffer<int8>& x, adf::output_buffer<int16>& y, const int32 (&parameters)[2]) {
  aie::set_rounding(aie::rounding_mode::floor);
  aie::set_saturation(aie::saturation_mode::saturate);
  const aie::vector<int16, 32> factor = aie::broadcast<int16, 32>(static_cast<int16>(parameters[0]));
  auto in = aie::cbegin_vector<32>(x.data());
  auto out = aie::begin_vector<32>(y.data());
  for (unsigned i = 0; i < x.size() / 32; ++i) {
    *out++ = aie::mul(aie::unpack(*in++), factor).to_vector<int16>(parameters[1]);
  }
}
