// The operator hccs::HCCS as ONNX Runtime sees it: one custom op for each pair of types, all of one name.
#pragma once

#include "hccs/ort_abi.h"

namespace hccs {

constexpr const char* kDomain = "hccs";
constexpr const char* kOpName = "HCCS";

// A custom op with the runtime that it was made for: shape inference is not told.
struct Op : ort::CustomOp {
  const ort::Api* api;
};

// The ops, in the order in which they must be added: the first one's shape function serves them all.
constexpr size_t kOpCount = 3;
void make_ops(const ort::Api& api, Op (&ops)[kOpCount]);

}  // namespace hccs
