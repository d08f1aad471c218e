#include "kernels.h"

#include "hccs_kernel.h"
#include "plan.h"

void hccs_tile(adf::input_buffer<int8>& x, adf::output_buffer<@OUT@>& y, const int32 (&params)[@PARAMETER_COUNT@]) {
  hccs::@FUNCTION@<@OUT@, hccs::Reciprocal::@RECIPROCAL@, @MASKED@, plan::n, plan::rows, plan::slots>(x, y, params);
}
