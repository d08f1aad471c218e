// Kernels alone, in cache: G elements/s of every kernel in the list that runs here, and the share that this is of the
// machine's limit: of only reading x and writing y, each once, with the widest vectors that the kernels use.
//
//   hccs_kernel_bench [--bytes B] [--rounds R] [--json] [N...]
//
// Buffers take B bytes, both sides counted (default 192 KiB: inside a second-level cache), and begin on a cache line as
// ONNX Runtime's do. Kernels and limits take turns within a round of a few hundred microseconds each; shown is the
// median over the rounds. --json prints a list of objects {kernel, types, form, n, gelements_per_s,
// limit_gelements_per_s}.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <random>
#include <string>
#include <vector>

#include "hccs/dispatch.h"
#include "limit.h"

namespace hccs::bench {
namespace {

struct Settings {
  size_t bytes = 192 * 1024;
  int rounds = 41;
  bool json = false;
  std::vector<size_t> lengths{32, 49, 64, 128, 197, 224, 256, 512, 577, 608, 2048};
};

class Rates {
 public:
  void add(double rate) { rates_.push_back(rate); }
  double median() {
    const auto middle = rates_.begin() + static_cast<ptrdiff_t>(rates_.size() / 2);
    std::nth_element(rates_.begin(), middle, rates_.end());
    return *middle;
  }

 private:
  std::vector<double> rates_;
};

// Keeps x and y apart by no multiple of a page: addresses that are equal modulo 4096 slow copying down by half.
constexpr size_t kGap = 2112;  // a multiple of 64

// Processor time of this thread, which other work on the machine does not count into; wall clock where there is none.
double seconds() {
#if defined(CLOCK_THREAD_CPUTIME_ID)
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
#else
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
#endif
}

// G elements/s of `body`, which does `elements` elements a call.
template <class Body>
double rate(size_t elements, Body body) {
  const size_t repeats = std::max<size_t>(1, 2000000 / elements);
  const double start = seconds();
  for (size_t i = 0; i < repeats; ++i) body();
  return static_cast<double>(elements) * static_cast<double>(repeats) / (seconds() - start) * 1e-9;
}

// A buffer of floats, int16 or bytes that begins `gap` bytes after a cache line's begin.
template <class Type>
class Buffer {
 public:
  Buffer(size_t count, size_t gap) : bytes_(count * sizeof(Type) + gap + kLine) {
    const size_t off = reinterpret_cast<uintptr_t>(bytes_.data()) % kLine;
    begin_ = reinterpret_cast<Type*>(bytes_.data() + (kLine - off) % kLine + gap);
  }
  Type* begin() { return begin_; }

 private:
  static constexpr size_t kLine = 64;
  std::vector<unsigned char> bytes_;
  Type* begin_;
};

struct Printer {
  bool json, first = true;

  void row(const char* types, const char* form, size_t n, const char* kernel, double speed, double limit) {
    if (json) {
      std::printf(
          "%s{\"kernel\":\"%s\",\"types\":\"%s\",\"form\":\"%s\",\"n\":%zu,\"gelements_per_s\":%.3f,"
          "\"limit_gelements_per_s\":%.3f}",
          first ? "[" : ",\n", kernel, types, form, n, speed, limit);
    } else {
      std::printf("%-9s %-14s %-12s n %5zu %8.2f G/s %5.0f %% of the limit\n", kernel, types, form, n, speed,
                  100 * speed / limit);
    }
    first = false;
    std::fflush(stdout);
  }
};

template <class Input, class Result, class Choose>
void measure(const Settings& settings, Printer& printer, const char* types, const char* form_name, size_t n,
             const Form& form, Choose choose) {
  const size_t rows = std::max<size_t>(1, settings.bytes / (n * (sizeof(Input) + sizeof(Result))));
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, 24);
  const size_t count = rows * n;
  Buffer<Input> x_buffer(count, 0);
  Buffer<Result> y_buffer(count, kGap);
  Input* const x = x_buffer.begin();
  Result* const y = y_buffer.begin();
  for (size_t i = 0; i < count; ++i) {
    x[i] = static_cast<Input>(std::min(127.0f, std::max(-127.0f, normal(random))));
  }
  if (form.masked) {
    const Input hidden = sizeof(Input) == 1 ? static_cast<Input>(-128) : static_cast<Input>(-1e4);
    for (size_t row = 0; row < rows; ++row) std::fill_n(&x[row * n + n - n / 4], n / 4, hidden);
  }
  // Legal for every form: 256 <= n*F and n*B <= 32767 where there is such a B, and typical otherwise.
  const int32_t B = static_cast<int32_t>(std::max<size_t>(32767 / n, 300));
  const Head head{sizeof(Input) == 1 ? B : 16259, sizeof(Input) == 1 ? std::min(127, B / 48) : 127,
                  sizeof(Input) == 1 ? 40 : 127, 0.5f};
  // Every kernel, each followed by its limit.
  std::vector<const Kernels*> kernels;
  for (size_t i = 0; i < kernel_count(); ++i) {
    if (kernels_at(i)->runs_here()) kernels.push_back(kernels_at(i));
  }
  std::vector<Rates> rates(2 * kernels.size());
  for (int round = 0; round < settings.rounds; ++round) {
    for (size_t i = 0; i < kernels.size(); ++i) {
      rates[2 * i].add(rate(count, [&] { choose (*kernels[i])(x, y, rows, n, head, form); }));
      const Limit limit = limit_of(kernels[i]->name);
      rates[2 * i + 1].add(rate(count, [&] { limit(x, y, count * sizeof(Input), count * sizeof(Result)); }));
    }
  }
  for (size_t i = 0; i < kernels.size(); ++i) {
    printer.row(types, form_name, n, kernels[i]->name, rates[2 * i].median(), rates[2 * i + 1].median());
  }
}

void run(const Settings& settings) {
  const struct {
    const char* name;
    Form form;
  } forms[] = {{"norm", {Reciprocal::kNorm, false, 64}},
               {"norm masked", {Reciprocal::kNorm, true, 64}},
               {"div", {Reciprocal::kDiv, false, 64}},
               {"div masked", {Reciprocal::kDiv, true, 64}},
               {"clb", {Reciprocal::kClb, false, 64}}};
  Printer printer{settings.json};
  for (const auto& f : forms) {
    for (const size_t n : settings.lengths) {
      measure<int8_t, uint8_t>(settings, printer, "int8 to uint8", f.name, n, f.form,
                               [](const Kernels& k) { return k.int8_to_uint8; });
    }
  }
  for (const auto& f : forms) {
    for (const size_t n : settings.lengths) {
      measure<int8_t, int16_t>(settings, printer, "int8 to int16", f.name, n, f.form,
                               [](const Kernels& k) { return k.int8_to_int16; });
    }
  }
  for (const auto& f : {forms[0], forms[1]}) {
    for (const size_t n : settings.lengths) {
      measure<float, float>(settings, printer, "float to float", f.form.masked ? "masked" : "plain", n, f.form,
                            [](const Kernels& k) { return k.float_to_float; });
    }
  }
  if (settings.json) std::printf("]\n");
}

}  // namespace
}  // namespace hccs::bench

int main(int argc, char** argv) {
  hccs::bench::Settings settings;
  std::vector<size_t> lengths;
  for (int i = 1; i < argc; ++i) {
    if (strcmp(argv[i], "--json") == 0) {
      settings.json = true;
    } else if (strcmp(argv[i], "--bytes") == 0 && i + 1 < argc) {
      settings.bytes = std::strtoull(argv[++i], nullptr, 10);
    } else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc) {
      settings.rounds = std::max(1, std::atoi(argv[++i]));
    } else if (const size_t n = std::strtoull(argv[i], nullptr, 10)) {
      lengths.push_back(n);
    } else {
      std::printf("usage: %s [--bytes B] [--rounds R] [--json] [N...]\n", argv[0]);
      return 2;
    }
  }
  if (!lengths.empty()) settings.lengths = lengths;
  hccs::bench::run(settings);
}
