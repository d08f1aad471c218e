#include "legality.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>

namespace hccs {
namespace {

constexpr int32_t kMaxOffset = 32767;  // int16 scores
constexpr int32_t kMaxSlope = 127;     // int8 slope
constexpr int32_t kMaxClip = 127;      // widest gap between two unmasked int8 codes that is still an int8
constexpr int64_t kMaxInt16Sum = 32767;
constexpr int64_t kMinUint8Sum = 256;
constexpr int64_t kAnyLength = std::numeric_limits<int64_t>::max();

int64_t floor_score(const Head& head) {
  return head.B - static_cast<int64_t>(head.S) * head.Dmax;
}

bool depends_on_sum(const Attributes& attributes, Output output) {
  return output != Output::kFloat && attributes.form.reciprocal != Reciprocal::kNorm;
}

std::string text(float value) {
  char buffer[32];
  std::snprintf(buffer, sizeof buffer, "%g", static_cast<double>(value));
  return buffer;
}

std::string bound(const char* what, int64_t value, const char* relation, int64_t limit) {
  return std::string(what) + " (" + std::to_string(value) + ", needs " + relation + " " + std::to_string(limit) + ")";
}

std::string within(const char* what, int64_t value, int64_t low, int64_t high) {
  if (value < low) return bound(what, value, ">=", low);
  if (value > high) return bound(what, value, "<=", high);
  return {};
}

std::string head_violation(const Head& head, const Attributes& attributes, Output output) {
  std::string reason = within("floor B - S*Dmax is negative", floor_score(head), 0, kMaxOffset);
  if (reason.empty() && !(std::isfinite(head.scale) && head.scale > 0)) {
    reason = "scale is not positive and finite (" + text(head.scale) + ", needs > 0)";
  }
  // All but one position of a row may be masked.
  if (reason.empty() && depends_on_sum(attributes, output) && output == Output::kUint8 && attributes.form.masked) {
    reason = within("row sum can be too small for uint8: B when masked", head.B, kMinUint8Sum, kMaxOffset);
  }
  return reason;
}

RowLengths head_row_lengths(const Head& head, const Attributes& attributes, Output output) {
  if (!depends_on_sum(attributes, output)) return {1, kAnyLength};
  if (output == Output::kInt16) return {1, kMaxInt16Sum / head.B};
  const int64_t floor = floor_score(head), missing = kMinUint8Sum - head.B;
  if (attributes.form.masked || missing <= 0) return {1, kAnyLength};
  return {floor == 0 ? kAnyLength : 1 + (missing + floor - 1) / floor, kAnyLength};
}

std::string of_head(size_t index, const std::string& reason) {
  return "head " + std::to_string(index) + ": " + reason;
}

}  // namespace

std::string range_violation(size_t index, int64_t B, int64_t S, int64_t Dmax) {
  std::string reason = within("offset B out of range", B, 1, kMaxOffset);
  if (reason.empty()) reason = within("slope S out of range", S, 0, kMaxSlope);
  if (reason.empty()) reason = within("clip distance Dmax out of range", Dmax, 1, kMaxClip);
  return reason.empty() ? reason : of_head(index, reason);
}

std::string violation(const Attributes& attributes, Output output) {
  for (size_t i = 0; i < attributes.heads.size(); ++i) {
    const std::string reason = head_violation(attributes.heads[i], attributes, output);
    if (!reason.empty()) return of_head(i, reason);
  }
  if (attributes.heads.size() > 1 && attributes.head_axis == -1) {
    return "head_axis is the last axis (-1, needs any other)";
  }
  if (!(attributes.form.mask_gap > 0)) {
    return "mask_gap is not positive (" + text(attributes.form.mask_gap) + ", needs > 0)";
  }
  return {};
}

RowLengths legal_row_lengths(const Attributes& attributes, Output output) {
  RowLengths all{1, kAnyLength};
  for (const Head& head : attributes.heads) {
    const RowLengths lengths = head_row_lengths(head, attributes, output);
    all.least = std::max(all.least, lengths.least);
    all.most = std::min(all.most, lengths.most);
  }
  return all;
}

std::string row_length_violation(const Attributes& attributes, Output output, int64_t n) {
  const std::string row_length = " for n = " + std::to_string(n);
  for (size_t i = 0; i < attributes.heads.size(); ++i) {
    const Head& head = attributes.heads[i];
    const RowLengths lengths = head_row_lengths(head, attributes, output);
    if (n > lengths.most) {
      return of_head(i, bound(("row sum overflows int16: n*B" + row_length).c_str(), n * head.B, "<=", kMaxInt16Sum));
    }
    if (n < lengths.least) {
      return of_head(i, bound(("row sum can be too small for uint8: B + (n-1)*F" + row_length).c_str(),
                              head.B + (n - 1) * floor_score(head), ">=", kMinUint8Sum));
    }
  }
  return {};
}

}  // namespace hccs
