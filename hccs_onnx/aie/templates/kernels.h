// The kernel that every tile runs.
#pragma once
#include <adf.h>

void hccs_tile(adf::input_buffer<int8>& x, adf::output_buffer<@OUT@>& y, const int32 (&params)[@PARAMETER_COUNT@]);
