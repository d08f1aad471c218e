// The one tester that every kernel in the list goes through.
//
//   hccs_kernel_test [--seconds S] [--seed N] [--kernel NAME] [VECTORS...]
//
// Rows come from vector files written by test/write_vectors.py from the NumPy reference, and from sweeps and random
// draws held against test/definition.h. Each case runs twice, with x and y at the end of guarded memory and unaligned,
// and in place where the contract allows it. Exit status 0: all equal; 1: a difference, which is printed.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "definition.h"
#include "guarded_buffer.h"
#include "hccs/dispatch.h"

namespace hccs::test {
namespace {

using Random = std::mt19937_64;

int64_t draw(Random& random, int64_t low, int64_t high) {
  return std::uniform_int_distribution<int64_t>(low, high)(random);
}

template <class Result>
struct InputOf {
  using Type = int8_t;
};
template <>
struct InputOf<float> {
  using Type = float;
};

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

const char* name(Reciprocal reciprocal) {
  return reciprocal == Reciprocal::kNorm ? "norm" : reciprocal == Reciprocal::kDiv ? "div" : "clb";
}

// Rows with what they must give.
template <class Result>
struct Case {
  using Input = typename InputOf<Result>::Type;
  std::string origin;
  Head head;
  Form form;
  size_t n;
  std::vector<Input> x;
  std::vector<Result> y;

  size_t rows() const { return x.size() / n; }
};

class Tester {
 public:
  explicit Tester(const char* only) : only_(only) {}

  size_t elements() const { return elements_; }

  template <class Result>
  void check(const Case<Result>& c) {
    std::vector<Result> defined(c.x.size());
    for (size_t i = 0; i < c.x.size(); i += c.n) define_row(&c.x[i], &defined[i], c.n, c.head, c.form);
    compare(c, "definition", "", defined.data());
    bool any = false;
    for (size_t i = 0; i < kernel_count(); ++i) {
      const Kernels& kernels = *kernels_at(i);
      if ((only_ != nullptr && strcmp(only_, kernels.name) != 0) || !kernels.runs_here()) continue;
      any = true;
      check_kernel(c, kernels);
    }
    if (!any) fail("no kernel of that name runs here");
    elements_ += c.x.size();
  }

  // The same without known results: the definition gives them.
  template <class Result>
  void check_defined(Case<Result> c) {
    c.y.resize(c.x.size());
    for (size_t i = 0; i < c.x.size(); i += c.n) define_row(&c.x[i], &c.y[i], c.n, c.head, c.form);
    check(c);
  }

 private:
  template <class Result>
  void check_kernel(const Case<Result>& c, const Kernels& kernels) {
    using Input = typename InputOf<Result>::Type;
    const size_t input_bytes = c.x.size() * sizeof(Input), result_bytes = c.x.size() * sizeof(Result);
    GuardedBuffer x(input_bytes), y(result_bytes);
    memcpy(x.begin(), c.x.data(), input_bytes);
    for (const char* pass : {"first run", "second run"}) {
      call(kernels, reinterpret_cast<const Input*>(x.begin()), reinterpret_cast<Result*>(y.begin()), c.rows(), c.n,
           c.head, c.form);
      compare(c, kernels.name, pass, reinterpret_cast<const Result*>(y.begin()));
      if (!y.intact() || !x.intact()) report(c, kernels.name, "wrote before y", 0, 0, 0);
      if (memcmp(x.begin(), c.x.data(), input_bytes) != 0) report(c, kernels.name, "wrote to x", 0, 0, 0);
    }
    for (size_t shift : {size_t{1}, size_t{3}}) {  // in elements; y then ends short of the guard page
      std::vector<Input> source(c.x.size() + shift);
      std::vector<Result> target(c.x.size() + 2 * shift, Result{77});
      std::copy(c.x.begin(), c.x.end(), source.begin() + static_cast<ptrdiff_t>(shift));
      call(kernels, source.data() + shift, target.data() + shift, c.rows(), c.n, c.head, c.form);
      compare(c, kernels.name, "unaligned", target.data() + shift);
      for (size_t i = 0; i < shift; ++i) {
        if (!same(target[i], Result{77}) || !same(target[target.size() - 1 - i], Result{77})) {
          report(c, kernels.name, "wrote around y", i, 0, 0);
        }
      }
    }
    if constexpr (sizeof(Input) == sizeof(Result)) {
      memcpy(y.begin(), c.x.data(), input_bytes);
      call(kernels, reinterpret_cast<const Input*>(y.begin()), reinterpret_cast<Result*>(y.begin()), c.rows(), c.n,
           c.head, c.form);
      compare(c, kernels.name, "in place", reinterpret_cast<const Result*>(y.begin()));
    }
  }

  template <class Result>
  void compare(const Case<Result>& c, const char* kernel, const char* what, const Result* y) {
    for (size_t i = 0; i < c.x.size(); ++i) {
      if (!same(y[i], c.y[i])) {
        report(c, kernel, what, i, static_cast<double>(y[i]), static_cast<double>(c.y[i]));
      }
    }
  }

  template <class Result>
  void report(const Case<Result>& c, const char* kernel, const char* what, size_t i, double found, double needed) {
    std::printf("%s to %s, %s, %s, %s: n %zu, row %zu, position %zu, x %.9g: %.9g, needs %.9g\n",
                sizeof(c.x[0]) == 1 ? "int8" : "float",
                sizeof(Result) == 1   ? "uint8"
                : sizeof(Result) == 2 ? "int16"
                                      : "float",
                kernel, what, c.origin.c_str(), c.n, i / c.n, i % c.n, static_cast<double>(c.x[i]), found, needed);
    std::printf("  B %d, S %d, Dmax %d, scale %.9g, %s, masked %d, mask_gap %.9g\n", c.head.B, c.head.S, c.head.Dmax,
                static_cast<double>(c.head.scale), name(c.form.reciprocal), c.form.masked,
                static_cast<double>(c.form.mask_gap));
    std::exit(1);
  }

  static void fail(const char* why) {
    std::printf("%s\n", why);
    std::exit(1);
  }

  const char* only_;
  size_t elements_ = 0;
};

// Vector files

// As write_vectors.py writes them, little-endian: "HCCSVEC1", then cases until the end.
struct CaseHeader {
  uint32_t result;  // 0 uint8, 1 int16, 2 float
  uint32_t reciprocal;
  uint32_t masked;
  int32_t B, S, Dmax;
  float scale, mask_gap;
  uint64_t rows, n;
};
static_assert(sizeof(CaseHeader) == 48, "packed as written");

template <class Result>
void check_from_file(Tester& tester, std::ifstream& file, const CaseHeader& header, const std::string& origin) {
  Case<Result> c{origin,
                 {header.B, header.S, header.Dmax, header.scale},
                 {static_cast<Reciprocal>(header.reciprocal), header.masked != 0, header.mask_gap},
                 header.n,
                 {},
                 {}};
  c.x.resize(header.rows * header.n);
  c.y.resize(header.rows * header.n);
  file.read(reinterpret_cast<char*>(c.x.data()), static_cast<std::streamsize>(c.x.size() * sizeof(c.x[0])));
  file.read(reinterpret_cast<char*>(c.y.data()), static_cast<std::streamsize>(c.y.size() * sizeof(Result)));
  if (!file) {
    std::printf("%s: ends in the middle of a case\n", origin.c_str());
    std::exit(1);
  }
  tester.check(c);
}

size_t check_file(Tester& tester, const char* path) {
  std::ifstream file(path, std::ios::binary);
  char magic[8] = {};
  if (!file.read(magic, 8) || memcmp(magic, "HCCSVEC1", 8) != 0) {
    std::printf("%s: not a vector file\n", path);
    std::exit(1);
  }
  CaseHeader header;
  size_t cases = 0;
  while (file.read(reinterpret_cast<char*>(&header), sizeof header)) {
    const std::string origin = std::string(path) + " case " + std::to_string(cases++);
    if (header.result == 0) check_from_file<uint8_t>(tester, file, header, origin);
    if (header.result == 1) check_from_file<int16_t>(tester, file, header, origin);
    if (header.result == 2) check_from_file<float>(tester, file, header, origin);
  }
  return cases;
}

// Drawn cases

constexpr Reciprocal kReciprocals[] = {Reciprocal::kNorm, Reciprocal::kDiv, Reciprocal::kClb};

Head draw_head(Random& random) {
  Head head{1, 0, 1, 1.0f};
  const int64_t largest = random() % 3 == 0 ? 32767 : random() % 2 == 0 ? 300 : 20000;
  head.B = static_cast<int32_t>(random() % 8 == 0 ? largest : draw(random, 1, largest));
  head.Dmax = static_cast<int32_t>(random() % 6 == 0 ? 127 : draw(random, 1, 127));
  const int32_t steepest = std::min(127, head.B / head.Dmax);
  head.S = static_cast<int32_t>(random() % 3 == 0 ? steepest : draw(random, 0, steepest));
  const float scales[] = {3.3f / 127, 1.0f, 0.125f, 0.1f, 7.7f, 1e-20f, 1e-40f, 3e38f};
  head.scale = random() % 2 == 0 ? scales[random() % 8] : std::exp(static_cast<float>(draw(random, -60, 30)) * 0.1f);
  return head;
}

void draw_row(Random& random, int8_t* x, size_t n, const Head&) {
  const uint64_t kind = random() % 8;
  const int64_t low = kind == 0 ? -128 : kind == 1 ? -5 : kind == 2 ? -128 : -127;
  const int64_t high = kind == 1 ? 5 : kind == 2 ? -100 : 127;
  for (size_t i = 0; i < n; ++i) x[i] = static_cast<int8_t>(draw(random, low, high));
  if (kind == 3) std::fill(x, x + n, static_cast<int8_t>(-128));
  if (kind == 4) std::fill(x, x + n, static_cast<int8_t>(draw(random, -128, 127)));
  if (kind == 5) std::fill(x + draw(random, 0, static_cast<int64_t>(n)), x + n, static_cast<int8_t>(-128));
  if (kind == 6) {
    std::fill(x, x + n, static_cast<int8_t>(-128));
    x[random() % n] = static_cast<int8_t>(draw(random, -128, 127));
  }
}

void draw_row(Random& random, float* x, size_t n, const Head& head) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const uint64_t kind = random() % 10;
  std::normal_distribution<float> normal(0, 40);
  for (size_t i = 0; i < n; ++i) x[i] = normal(random) * head.scale;
  if (kind == 0) {  // halves and their neighbours: where rounding can go either way
    for (size_t i = 0; i < n; ++i) {
      x[i] = -static_cast<float>(draw(random, 0, 260)) * 0.5f * head.scale;
      if (random() % 2 == 0) x[i] = std::nextafter(x[i], random() % 2 == 0 ? kInfinity : -kInfinity);
    }
    x[random() % n] = 0;
  }
  const float odd[] = {NAN, kInfinity, -kInfinity, 3.4e38f, -3.4e38f, -1e4f, -0.0f, 1e-45f};
  if (kind == 1) x[random() % n] = odd[random() % 8];
  if (kind == 2) std::fill(x, x + n, -kInfinity);
  if (kind == 3) {
    std::fill(x, x + n, -kInfinity);
    x[random() % n] = odd[random() % 8];
  }
  if (kind == 4) {
    for (size_t i = 0; i < n; ++i) {
      if (random() % 3 == 0) x[i] = odd[2 + random() % 6];
    }
  }
}

template <class Result>
Case<Result> draw_case(Random& random, size_t n, size_t rows, Reciprocal reciprocal, bool masked) {
  Case<Result> c{"drawn", draw_head(random), {reciprocal, masked, 64.0f}, n, {}, {}};
  const float mask_gaps[] = {64.0f, 1.0f, 10.0f * c.head.scale, std::numeric_limits<float>::infinity()};
  c.form.mask_gap = mask_gaps[random() % 4];
  c.x.resize(rows * n);
  for (size_t i = 0; i < c.x.size(); i += n) draw_row(random, &c.x[i], n, c.head);
  return c;
}

void check_form(Tester& tester, Random& random, size_t n, size_t rows, Reciprocal reciprocal, bool masked) {
  tester.check_defined(draw_case<uint8_t>(random, n, rows, reciprocal, masked));
  tester.check_defined(draw_case<int16_t>(random, n, rows, reciprocal, masked));
  if (reciprocal == Reciprocal::kNorm) tester.check_defined(draw_case<float>(random, n, rows, reciprocal, masked));
}

void sweep_lengths(Tester& tester, Random& random) {
  for (size_t n = 1; n <= 300; ++n) {
    for (const Reciprocal reciprocal : kReciprocals) {
      for (const bool masked : {false, true}) check_form(tester, random, n, 1 + n % 5, reciprocal, masked);
    }
  }
  // Among them both sides of every bound at which a kernel changes its blocks, pieces or vectors.
  constexpr size_t kLong[] = {511,  512,  513,  577,  1000, 2047, 2048, 2049, 4031,  4032,  4033,  4095,  4096,  4097,
                              4160, 4161, 6433, 6465, 8128, 8191, 8192, 8193, 12801, 65535, 65536, 65537, 200003};
  for (const size_t n : kLong) {
    for (const Reciprocal reciprocal : kReciprocals) {
      for (const bool masked : {false, true}) check_form(tester, random, n, 2, reciprocal, masked);
    }
  }
}

// Every row there is of one and of two codes, and of three codes out of sixteen.
template <class Result>
void sweep_rows(Tester& tester, Random& random) {
  std::vector<int8_t> one, two, three;
  for (int a = -128; a <= 127; ++a) {
    one.push_back(static_cast<int8_t>(a));
    for (int b = -128; b <= 127; ++b) {
      two.push_back(static_cast<int8_t>(a));
      two.push_back(static_cast<int8_t>(b));
    }
  }
  for (int i = 0; i < 16 * 16 * 16; ++i) {
    for (const int digit : {i / 256, i / 16 % 16, i % 16}) three.push_back(static_cast<int8_t>(-128 + 17 * digit));
  }
  for (const Reciprocal reciprocal : kReciprocals) {
    for (const bool masked : {false, true}) {
      for (int heads = 0; heads < 3; ++heads) {
        const Head head = draw_head(random);
        const Form form{reciprocal, masked, 64.0f};
        tester.check_defined(Case<Result>{"every row of 1", head, form, 1, one, {}});
        tester.check_defined(Case<Result>{"every row of 2", head, form, 2, two, {}});
        tester.check_defined(Case<Result>{"rows of 3", head, form, 3, three, {}});
      }
    }
  }
}

// Row sums around powers of two and the bounds of int16, where shifts and reciprocals change.
template <class Result>
void sweep_sums(Tester& tester, Random& random) {
  for (int32_t B = 1; B <= 32767; B = B * 5 / 4 + 1) {
    constexpr size_t kLengths[] = {1, 2, 3, 5, 31, 32, 33, 127, 128, 129, 255, 256, 257};
    for (const size_t n : kLengths) {
      const int32_t Dmax = static_cast<int32_t>(draw(random, 1, 127));
      const Head head{B, std::min(127, B / Dmax), Dmax, 1.0f};
      for (const Reciprocal reciprocal : kReciprocals) {
        Case<Result> c{"row sums", head, {reciprocal, random() % 2 == 0, 64.0f}, n, {}, {}};
        c.x.resize(2 * n);
        for (size_t i = 0; i < c.x.size(); ++i) c.x[i] = static_cast<int8_t>(i < n ? 0 : draw(random, -127, -100));
        c.x[n] = 127;
        tester.check_defined(c);
      }
    }
  }
}

// Rows that end in masked codes, the same for all, growing as under a causal mask, or anywhere; more rows than are
// looked at together.
template <class Result>
void sweep_padding(Tester& tester, Random& random) {
  constexpr size_t kLengths[] = {32, 63, 64, 65, 95, 96, 97, 128, 160, 256, 257, 288, 320, 500, 577, 2048};
  for (const size_t n : kLengths) {
    for (const Reciprocal reciprocal : kReciprocals) {
      for (int kind = 0; kind < 3; ++kind) {
        Case<Result> c = draw_case<Result>(random, n, 150, reciprocal, true);
        const size_t shared = static_cast<size_t>(draw(random, 0, static_cast<int64_t>(n)));
        for (size_t row = 0; row < c.rows(); ++row) {
          const size_t shown = kind == 0   ? shared
                               : kind == 1 ? std::min(n, 1 + row * n / c.rows())
                                           : static_cast<size_t>(draw(random, 0, static_cast<int64_t>(n)));
          std::fill(&c.x[row * n] + shown, &c.x[row * n] + n, static_cast<int8_t>(-128));
        }
        tester.check_defined(c);
      }
    }
  }
}

// The bounds of Dmax and scale at which kernels take another way, and rows of floats full of halves.
void sweep_bounds(Tester& tester, Random& random) {
  constexpr size_t kLengths[] = {17, 49, 65, 128, 193, 224, 321, 1100};
  for (const size_t n : kLengths) {
    for (const int32_t Dmax : {1, 15, 16, 62, 63, 64, 65, 126, 127}) {
      for (const bool masked : {false, true}) {
        const int32_t B = static_cast<int32_t>(draw(random, Dmax, 32767));
        for (const Reciprocal reciprocal : kReciprocals) {
          auto bytes = draw_case<uint8_t>(random, n, 3, reciprocal, masked);
          auto words = draw_case<int16_t>(random, n, 3, reciprocal, masked);
          bytes.head = words.head = {B, std::min(127, B / Dmax), Dmax, 1.0f};
          tester.check_defined(bytes);
          tester.check_defined(words);
        }
        for (const float bound : {1e-30f, 1e30f, 0.1f}) {
          for (const float scale : {std::nextafter(bound, 0.0f), bound, std::nextafter(bound, 1e38f)}) {
            Case<float> c{
                "bounds", {B, std::min(127, B / Dmax), Dmax, scale}, {Reciprocal::kNorm, masked, 64.0f}, n, {}, {}};
            c.form.mask_gap = static_cast<float>(Dmax) * scale * (n % 2 == 0 ? 0.5f : 2.0f);
            c.x.resize(9 * n);
            for (size_t i = 0; i < c.x.size(); i += n) draw_row(random, &c.x[i], n, c.head);
            tester.check_defined(c);
          }
        }
      }
    }
  }
}

void draw_for(Tester& tester, Random& random, double seconds) {
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  while (std::chrono::duration<double>(Clock::now() - start).count() < seconds) {
    const size_t n = static_cast<size_t>(draw(random, 1, random() % 4 == 0 ? 2000 : 300));
    check_form(tester, random, n, static_cast<size_t>(draw(random, 1, 6)), kReciprocals[random() % 3],
               random() % 2 == 0);
  }
}

int run(int argc, char** argv) {
  double seconds = 2;
  uint64_t seed = 1;
  const char* only = nullptr;
  std::vector<const char*> files;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    const bool option = argument == "--seconds" || argument == "--seed" || argument == "--kernel";
    if (option && i + 1 == argc) {
      std::printf("%s needs a value\n", argv[i]);
      return 2;
    }
    if (argument == "--seconds") {
      seconds = std::atof(argv[++i]);
    } else if (argument == "--seed") {
      seed = std::strtoull(argv[++i], nullptr, 10);
    } else if (argument == "--kernel") {
      only = argv[++i];
    } else {
      files.push_back(argv[i]);
    }
  }
  Tester tester(only);
  Random random(seed);
  for (const char* path : files) std::printf("%s: %zu cases\n", path, check_file(tester, path));
  sweep_rows<uint8_t>(tester, random);
  sweep_rows<int16_t>(tester, random);
  sweep_padding<uint8_t>(tester, random);
  sweep_padding<int16_t>(tester, random);
  sweep_sums<uint8_t>(tester, random);
  sweep_sums<int16_t>(tester, random);
  sweep_lengths(tester, random);
  sweep_bounds(tester, random);
  draw_for(tester, random, seconds);
  std::printf("%.1f million elements equal, kernels:", static_cast<double>(tester.elements()) * 1e-6);
  for (size_t i = 0; i < kernel_count(); ++i) {
    const Kernels& kernels = *kernels_at(i);
    if (only == nullptr || strcmp(only, kernels.name) == 0) {
      std::printf(" %s%s", kernels.name, kernels.runs_here() ? "" : " (does not run here)");
    }
  }
  std::printf("\n");
  return 0;
}

}  // namespace
}  // namespace hccs::test

int main(int argc, char** argv) {
  return hccs::test::run(argc, argv);
}
