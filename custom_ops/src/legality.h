// Which parameters are legal (profile `extended`), with reasons in the project's wording.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "hccs/kernel.h"

namespace hccs {

enum class Output { kUint8, kInt16, kFloat };

// The attributes of one node, each list brought to one entry a head.
struct Attributes {
  std::vector<Head> heads;
  int64_t head_axis = -3;
  Form form{Reciprocal::kNorm, false, 64.0f};
};

// Row lengths for which the parameters are legal: least <= n <= most.
struct RowLengths {
  int64_t least, most;
};

// Empty where B, S and Dmax of head `index` are in range, so that they fit a Head, otherwise as violation().
std::string range_violation(size_t index, int64_t B, int64_t S, int64_t Dmax);

// For heads in range. Empty where legal whatever the row length, otherwise "<what is wrong> (<found>, needs <bound>)".
std::string violation(const Attributes& attributes, Output output);

RowLengths legal_row_lengths(const Attributes& attributes, Output output);

// The same text for a row length outside legal_row_lengths().
std::string row_length_violation(const Attributes& attributes, Output output, int64_t n);

}  // namespace hccs
