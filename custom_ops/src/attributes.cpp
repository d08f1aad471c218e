#include "attributes.h"

#include <algorithm>

#include "status.h"

namespace hccs {
namespace {

// Reads typed attributes of one node. A function returns false and keeps the problem where the attribute has another
// type; a missing attribute leaves `value` as it is.
class Reader {
 public:
  Reader(const ort::Api& api, const OrtKernelInfo* info) : api_(api), info_(info) {}

  const std::string& problem() const { return problem_; }

  bool read(const char* name, std::vector<int64_t>* values) {
    return done(name, kInts, try_ints(name, values) && !values->empty());
  }
  bool read(const char* name, std::vector<float>* values) {
    return done(name, kFloats, try_floats(name, values) && !values->empty());
  }
  bool read(const char* name, int64_t* value) {
    return done(name, kInt, !failed(api_, api_.KernelInfoGetAttribute_int64(info_, name, value)));
  }
  bool read(const char* name, float* value) {
    return done(name, kReal, !failed(api_, api_.KernelInfoGetAttribute_float(info_, name, value)));
  }
  bool read(const char* name, std::string* value) { return done(name, kString, try_string(name, value)); }

 private:
  bool try_ints(const char* name, std::vector<int64_t>* values) {
    size_t size = 0;
    if (failed(api_, api_.KernelInfoGetAttributeArray_int64(info_, name, nullptr, &size))) return false;
    values->assign(std::max<size_t>(size, 1), 0);
    const bool good = !failed(api_, api_.KernelInfoGetAttributeArray_int64(info_, name, values->data(), &size));
    values->resize(size);
    return good;
  }

  bool try_floats(const char* name, std::vector<float>* values) {
    size_t size = 0;
    if (failed(api_, api_.KernelInfoGetAttributeArray_float(info_, name, nullptr, &size))) return false;
    values->assign(std::max<size_t>(size, 1), 0);
    const bool good = !failed(api_, api_.KernelInfoGetAttributeArray_float(info_, name, values->data(), &size));
    values->resize(size);
    return good;
  }

  bool try_string(const char* name, std::string* value) {
    size_t size = 0;
    if (failed(api_, api_.KernelInfoGetAttribute_string(info_, name, nullptr, &size))) return false;
    std::vector<char> text(std::max<size_t>(size, 1), '\0');
    if (failed(api_, api_.KernelInfoGetAttribute_string(info_, name, text.data(), &size))) return false;
    value->assign(text.data(), size > 0 ? size - 1 : 0);  // less the terminator; the text may hold zeros of its own
    return true;
  }

  // A missing attribute and one of another type look alike: reading fails, or gives an empty list. Only the second can
  // be read as something else; null where it cannot.
  const char* other_type(const char* name) {
    std::vector<int64_t> ints;
    std::vector<float> floats;
    std::string text;
    int64_t integer = 0;
    float real = 0;
    if (try_ints(name, &ints) && !ints.empty()) return kInts;
    if (try_floats(name, &floats) && !floats.empty()) return kFloats;
    if (try_string(name, &text)) return kString;
    if (!failed(api_, api_.KernelInfoGetAttribute_int64(info_, name, &integer))) return kInt;
    if (!failed(api_, api_.KernelInfoGetAttribute_float(info_, name, &real))) return kReal;
    return nullptr;
  }

  bool done(const char* name, const char* type, bool success) {
    const char* found = success ? nullptr : other_type(name);
    if (found == nullptr) return true;
    problem_ = std::string("attribute ") + name + " has another type (" + found + ", needs " + type + ")";
    return false;
  }

  static constexpr const char* kInts = "a list of integers";
  static constexpr const char* kFloats = "a list of floats";
  static constexpr const char* kString = "a string";
  static constexpr const char* kInt = "an integer";
  static constexpr const char* kReal = "a float";

  const ort::Api& api_;
  const OrtKernelInfo* info_;
  std::string problem_;
};

struct Lists {
  std::vector<int64_t> B, S, Dmax;
  std::vector<float> scale{1.0f};
};

template <class Value>
Value entry(const std::vector<Value>& values, size_t head) {
  return values[values.size() == 1 ? 0 : head];
}

// Heads from lists of length 1 or H, or the reason why not.
std::string heads_from(const Lists& lists, std::vector<Head>* heads) {
  const struct {
    const char* name;
    size_t size;
  } given[] = {
      {"B", lists.B.size()}, {"S", lists.S.size()}, {"Dmax", lists.Dmax.size()}, {"scale", lists.scale.size()}};
  size_t count = 1;
  std::string sizes;
  for (const auto& list : given) {
    if (list.size == 0) {
      return std::string("attribute ") + list.name + " is missing or empty (no entries, needs 1 or one a head)";
    }
    count = std::max(count, list.size);
    sizes += (sizes.empty() ? "" : ", ") + std::string(list.name) + " " + std::to_string(list.size);
  }
  for (const auto& list : given) {
    if (list.size != 1 && list.size != count) {
      return "attribute lists differ in length (" + sizes + ", needs 1 or " + std::to_string(count) + " each)";
    }
  }
  for (size_t i = 0; i < count; ++i) {
    const int64_t B = entry(lists.B, i), S = entry(lists.S, i), Dmax = entry(lists.Dmax, i);
    const std::string reason = range_violation(i, B, S, Dmax);
    if (!reason.empty()) return reason;
    heads->push_back(
        {static_cast<int32_t>(B), static_cast<int32_t>(S), static_cast<int32_t>(Dmax), entry(lists.scale, i)});
  }
  return {};
}

bool parse_reciprocal(const std::string& text, Reciprocal* reciprocal) {
  const struct {
    const char* name;
    Reciprocal value;
  } known[] = {{"norm", Reciprocal::kNorm}, {"div", Reciprocal::kDiv}, {"clb", Reciprocal::kClb}};
  for (const auto& candidate : known) {
    if (text == candidate.name) {
      *reciprocal = candidate.value;
      return true;
    }
  }
  return false;
}

// Text from a model as a message can show it: a few printable ASCII characters, others as \\xNN.
std::string shown(const std::string& text) {
  constexpr size_t kMost = 32;
  std::string result;
  for (const char c : text.substr(0, kMost)) {
    if (c >= ' ' && c <= '~') {
      result += c;
    } else {
      constexpr char kDigits[] = "0123456789abcdef";
      const unsigned byte = static_cast<unsigned char>(c);
      result += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return text.size() > kMost ? result + "..." : result;
}

std::string read_all(Reader& reader, Output output, Attributes* attributes) {
  Lists lists;
  int64_t masked = 0;
  std::string reciprocal = "norm";
  const bool good = reader.read("B", &lists.B) && reader.read("S", &lists.S) && reader.read("Dmax", &lists.Dmax) &&
                    reader.read("head_axis", &attributes->head_axis) && reader.read("reciprocal", &reciprocal) &&
                    reader.read("masked", &masked) && reader.read("scale", &lists.scale) &&
                    reader.read("mask_gap", &attributes->form.mask_gap);
  if (!good) return reader.problem();
  if (!parse_reciprocal(reciprocal, &attributes->form.reciprocal)) {
    return "unknown reciprocal ('" + shown(reciprocal) + "', needs one of div, clb, norm)";
  }
  if (masked != 0 && masked != 1) return "masked out of range (" + std::to_string(masked) + ", needs 0 or 1)";
  attributes->form.masked = masked == 1;
  const std::string problem = heads_from(lists, &attributes->heads);
  return problem.empty() ? violation(*attributes, output) : problem;
}

}  // namespace

std::string node_subject(const ort::Api& api, const OrtKernelInfo* info) {
  std::string name;
  size_t size = 0;
  if (!failed(api, api.KernelInfo_GetNodeName(info, nullptr, &size)) && size > 0) {
    std::vector<char> text(size, '\0');
    if (!failed(api, api.KernelInfo_GetNodeName(info, text.data(), &size))) name = text.data();
  }
  return "node '" + name + "'";
}

OrtStatus* read_attributes(const ort::Api& api, const OrtKernelInfo* info, const std::string& subject, Output output,
                           Attributes* attributes) {
  Reader reader(api, info);
  const std::string problem = read_all(reader, output, attributes);
  return problem.empty() ? nullptr : failure(api, subject, problem, kRecalibrate);
}

}  // namespace hccs
