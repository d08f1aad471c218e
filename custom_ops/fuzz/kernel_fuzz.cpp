// Fuzzes every kernel that runs here against the definition: bytes are types, form, parameters, shape, alignment and
// data.
//
// Built with clang this is a libFuzzer program; other compilers get a main() that runs files, to look at what was
// found: hccs_kernel_fuzz FILE...
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <vector>

#include "../test/definition.h"
#include "bytes.h"
#include "hccs/dispatch.h"

namespace hccs::fuzz {
namespace {

constexpr int64_t kMostElements = 6000;
constexpr size_t kGuard = 64;
constexpr uint8_t kPattern = 0xa5;

void call(const Kernels& k, const int8_t* x, uint8_t* y, size_t rows, size_t n, const Head& h, const Form& f) {
  k.int8_to_uint8(x, y, rows, n, h, f);
}
void call(const Kernels& k, const int8_t* x, int16_t* y, size_t rows, size_t n, const Head& h, const Form& f) {
  k.int8_to_int16(x, y, rows, n, h, f);
}
void call(const Kernels& k, const float* x, float* y, size_t rows, size_t n, const Head& h, const Form& f) {
  k.float_to_float(x, y, rows, n, h, f);
}

bool same(float a, float b) {
  return memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b));
}
template <class Result>
bool same(Result a, Result b) {
  return a == b;
}

// Elements in a block of their own, `offset` elements from its start, with a pattern on both sides. The block ends
// where the pattern does, so that an address sanitizer sees what is read beyond that.
template <class Element>
class Block {
 public:
  Block(const Element* source, size_t count, size_t offset, size_t guard)
      : before_(offset * sizeof(Element) + guard),
        bytes_(count * sizeof(Element)),
        memory_(before_ + bytes_ + guard, kPattern) {
    if (bytes_ > 0 && source != nullptr) memcpy(memory_.data() + before_, source, bytes_);
  }

  Element* elements() { return reinterpret_cast<Element*>(memory_.data() + before_); }

  bool intact() const {
    for (size_t i = 0; i < before_; ++i) {
      if (memory_[i] != kPattern) return false;
    }
    for (size_t i = before_ + bytes_; i < memory_.size(); ++i) {
      if (memory_[i] != kPattern) return false;
    }
    return true;
  }

 private:
  size_t before_, bytes_;
  std::vector<uint8_t> memory_;
};

template <class Result>
[[noreturn]] void report(const char* kernel, const char* what, size_t i, size_t n, const Head& head, const Form& form,
                         Result found, Result needed) {
  std::fprintf(stderr,
               "kernel %s, result of %zu bytes, %s: n %zu, element %zu: %.9g, needs %.9g; "
               "B %d, S %d, Dmax %d, scale %.9g, reciprocal %d, masked %d, mask_gap %.9g\n",
               kernel, sizeof(Result), what, n, i, static_cast<double>(found), static_cast<double>(needed), head.B,
               head.S, head.Dmax, static_cast<double>(head.scale), static_cast<int>(form.reciprocal), form.masked,
               static_cast<double>(form.mask_gap));
  std::abort();
}

int8_t take_logit(Bytes& bytes, int8_t, const Head&) {
  return bytes.take<int8_t>();
}

// Any float; or, from one byte, a multiple of half a gap code, where rounding can go either way.
float take_logit(Bytes& bytes, float, const Head& head) {
  const int8_t kind = bytes.take<int8_t>();
  return kind == 127 ? bytes.take<float>() : static_cast<float>(kind) * 0.5f * head.scale;
}

float positive(float value, float otherwise) {
  value = std::fabs(value);
  return value > 0 ? value : otherwise;  // NaN too
}

Head take_head(Bytes& bytes) {
  Head head{};
  head.B = static_cast<int32_t>(bytes.take(1, 32767));
  head.Dmax = static_cast<int32_t>(bytes.take(1, 127));
  head.S = static_cast<int32_t>(bytes.take(0, std::min(127, head.B / head.Dmax)));
  head.scale = positive(bytes.take<float>(), 0.1f);
  if (!std::isfinite(head.scale)) head.scale = std::numeric_limits<float>::max();
  return head;
}

template <class Input, class Result>
void fuzz(Bytes& bytes, const Form& form) {
  const Head head = take_head(bytes);
  const size_t offset = static_cast<size_t>(bytes.take(0, 7));
  const int64_t rows = bytes.take(0, 9);
  const int64_t n = bytes.take(1, rows > 0 ? kMostElements / rows : kMostElements);
  const size_t count = static_cast<size_t>(rows * n);
  std::vector<Input> x(count + 1);
  // Where bytes run out the row so far is repeated: long rows need not be long inputs.
  size_t given = 0;
  while (given < count && (bytes.left() > 0 || given == 0)) x[given++] = take_logit(bytes, Input{}, head);
  for (size_t i = given; i < count; ++i) x[i] = x[i - given];

  const size_t row = static_cast<size_t>(n);
  std::vector<Result> needed(count + 1);
  for (size_t i = 0; i < count; i += row) test::define_row(&x[i], &needed[i], row, head, form);

  for (size_t k = 0; k < kernel_count(); ++k) {
    const Kernels& kernels = *kernels_at(k);
    if (!kernels.runs_here()) continue;
    const auto compare = [&](const char* what, const Result* y) {
      for (size_t i = 0; i < count; ++i) {
        if (!same(y[i], needed[i])) report(kernels.name, what, i, row, head, form, y[i], needed[i]);
      }
    };
    for (const size_t guard : {kGuard, size_t{0}}) {
      Block<Input> source(x.data(), count, offset, 0);
      Block<Result> target(nullptr, count, offset, guard);
      call(kernels, source.elements(), target.elements(), static_cast<size_t>(rows), row, head, form);
      compare("apart", target.elements());
      const bool kept = count == 0 || memcmp(source.elements(), x.data(), count * sizeof(Input)) == 0;
      if (!kept || !source.intact()) report(kernels.name, "wrote to x", 0, row, head, form, Result{}, Result{});
      if (!target.intact()) report(kernels.name, "wrote around y", 0, row, head, form, Result{}, Result{});
    }
    if constexpr (sizeof(Input) == sizeof(Result)) {
      Block<Input> both(x.data(), count, offset, kGuard);
      Result* y = reinterpret_cast<Result*>(both.elements());
      call(kernels, both.elements(), y, static_cast<size_t>(rows), row, head, form);
      compare("in place", y);
      if (!both.intact()) report(kernels.name, "wrote around y", 0, row, head, form, Result{}, Result{});
    }
  }
}

}  // namespace
}  // namespace hccs::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  hccs::fuzz::Bytes bytes(data, size);
  constexpr hccs::Reciprocal kReciprocals[] = {hccs::Reciprocal::kNorm, hccs::Reciprocal::kDiv, hccs::Reciprocal::kClb};
  const uint8_t type = bytes.take<uint8_t>();
  hccs::Form form{kReciprocals[bytes.take(0, 2)], bytes.take(0, 1) == 1, 64.0f};
  if (bytes.take(0, 1) == 1) form.mask_gap = hccs::fuzz::positive(bytes.take<float>(), 64.0f);
  if (type % 3 == 0) hccs::fuzz::fuzz<int8_t, uint8_t>(bytes, form);
  if (type % 3 == 1) hccs::fuzz::fuzz<int8_t, int16_t>(bytes, form);
  if (type % 3 == 2) hccs::fuzz::fuzz<float, float>(bytes, form);
  return 0;
}

#if defined(HCCS_REPLAY)
#include <fstream>
#include <iterator>

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    const std::vector<char> data{std::istreambuf_iterator<char>(file), {}};
    if (!file) {
      std::fprintf(stderr, "%s: cannot be read\n", argv[i]);
      return 2;
    }
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(data.data()), data.size());
  }
  std::printf("%d files, no difference\n", argc - 1);
  return 0;
}
#endif
