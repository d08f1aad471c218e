// The AI Engine API on the host. docs/aie_emulation.md of hccs-onnx says what is offered and what is not modelled.
#pragma once

#include "../emulation/config.hpp"
#include "../emulation/counters.hpp"
#include "../emulation/state.hpp"
#include "../emulation/types.hpp"
#include "detail/accum.hpp"
#include "detail/arithmetic.hpp"
#include "detail/bits.hpp"
#include "detail/compare.hpp"
#include "detail/floating.hpp"
#include "detail/init.hpp"
#include "detail/iterator.hpp"
#include "detail/mask.hpp"
#include "detail/memory.hpp"
#include "detail/mmul.hpp"
#include "detail/multiply.hpp"
#include "detail/reduce.hpp"
#include "detail/scalar.hpp"
#include "detail/shuffle.hpp"
#include "detail/vector.hpp"

#undef AIE_EMULATION_WITH_SCALAR
