// Runs kernels on the host emulation. HCCS_CASES, a file the test writes, holds lines of
//     HCCS_CASE(kernel, output type, reciprocal, masked, n, rows, heads)
// Standard input: for each run int32 case, seed, then 4 * heads int32 parameters, then the padded codes. Standard
// output: for each run the padded outputs.
#include <hccs_kernel.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <vector>

namespace {

void read(void* to, std::size_t bytes) {
  if (std::fread(to, 1, bytes, stdin) != bytes) std::exit(3);
}

// Exactly as large as the buffer, so that the sanitizer sees every access beside it.
struct Free {
  void operator()(void* memory) const { std::free(memory); }
};
template <class T>
std::unique_ptr<T, Free> aligned(std::size_t count) {
  void* memory = nullptr;
  if (posix_memalign(&memory, 64, count * sizeof(T)) != 0) std::exit(3);
  return std::unique_ptr<T, Free>(static_cast<T*>(memory));
}

template <class Out, hccs::Reciprocal R, bool Masked, unsigned N, unsigned Rows, unsigned Heads>
using Kernel = void (*)(adf::input_buffer<int8>&, adf::output_buffer<Out>&, const int32 (&)[4 * Heads]);

template <class Out, hccs::Reciprocal R, bool Masked, unsigned N, unsigned Rows, unsigned Heads>
void run(Kernel<Out, R, Masked, N, Rows, Heads> kernel) {
  constexpr std::size_t elements = std::size_t{Heads} * Rows * hccs::padded_columns(N);
  int32 seed, params[4 * Heads];
  read(&seed, sizeof seed);
  read(params, sizeof params);
  const auto x = aligned<int8>(elements);
  const auto y = aligned<Out>(elements);
  read(x.get(), elements);
  for (std::size_t i = 0; i < elements; ++i) y.get()[i] = Out(0x5a5a);
  emulation::seed(std::uint64_t(seed));
  adf::input_buffer<int8> in(x.get(), elements);
  adf::output_buffer<Out> out(y.get(), elements);
  kernel(in, out, params);
  std::fwrite(y.get(), sizeof(Out), elements, stdout);
}

const std::vector<std::function<void()>> cases = {
#define HCCS_CASE(kernel, out, reciprocal, ...)                                                       \
  [] {                                                                                                \
    using namespace hccs;                                                                             \
    run<out, Reciprocal::reciprocal, __VA_ARGS__>(&kernel<out, Reciprocal::reciprocal, __VA_ARGS__>); \
  },
#include HCCS_CASES
#undef HCCS_CASE
};

}  // namespace

int main() {
  for (int32 index; std::fread(&index, sizeof index, 1, stdin) == 1;) cases.at(std::size_t(index))();
  return 0;
}
