// Reading a node's attributes through ONNX Runtime.
#pragma once

#include <string>

#include "hccs/ort_abi.h"
#include "legality.h"

namespace hccs {

// How messages call the node: "node '<name>'".
std::string node_subject(const ort::Api& api, const OrtKernelInfo* info);

// Reads the attributes, fills in defaults, and checks all that does not depend on the row length; `scale` and
// `mask_gap` too where X is int8, though its kernels do not use them. Returns null on success.
OrtStatus* read_attributes(const ort::Api& api, const OrtKernelInfo* info, const std::string& subject, Output output,
                           Attributes* attributes);

}  // namespace hccs
