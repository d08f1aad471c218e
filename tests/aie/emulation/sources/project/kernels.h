#pragma once
#include <adf.h>

void scale(adf::input_buffer<int8>& x, adf::output_buffer<int16>& y, const int32 (&parameters)[2]);
