// Drives the whole library from many threads, through a runtime of our own, for sanitizers: registration, shape
// inference, making, running and dropping kernels, refusals. Results are held against test/definition.h.
//
//   hccs_op_threads [THREADS [ROUNDS]]
//
// Exit status 0: all as it should be; otherwise it says what was not, and aborts.
#include <algorithm>
#include <random>

#include "../test/definition.h"
#include "fake_ort.h"
#include "hccs/library.h"

namespace hccs::fake {
namespace {

using Random = std::mt19937_64;

void need(bool condition, const std::string& what) {
  if (!condition) die("not so: " + what);
}

std::vector<const ort::CustomOp*> register_in(OrtSessionOptions& options, size_t runtime) {
  const std::string refusal = message(RegisterCustomOps(&options, base(runtime)));
  need(refusal.empty(), "registers without " + refusal);
  const std::lock_guard<std::mutex> lock(options.mutex);
  need(options.domains.size() == 1, "one domain in the options, however often registered");
  need(options.domains[0]->name == "hccs", "the domain is hccs");
  need(options.domains[0]->ops.size() == 3, "three ops");
  return options.domains[0]->ops;
}

OrtKernelInfo legal_node(Random& random, size_t heads) {
  OrtKernelInfo info;
  info.name = "sm";
  for (size_t i = 0; i < heads; ++i) {
    const int64_t B = 300 + static_cast<int64_t>(random() % 32000), Dmax = 1 + static_cast<int64_t>(random() % 127);
    info.ints["B"].push_back(B);
    info.ints["Dmax"].push_back(Dmax);
    info.ints["S"].push_back(static_cast<int64_t>(random() % 128) % (B / Dmax + 1));
    info.floats["scale"].push_back(0.01f * static_cast<float>(1 + random() % 100));
  }
  info.integers = {{"head_axis", 0}, {"masked", static_cast<int64_t>(random() % 2)}};
  info.reals["mask_gap"] = 8.0f;
  info.strings["reciprocal"] = "norm";
  return info;
}

void fill(Random& random, int8_t* x, size_t count) {
  for (size_t i = 0; i < count; ++i) x[i] = static_cast<int8_t>(random());
}
void fill(Random& random, float* x, size_t count) {
  for (size_t i = 0; i < count; ++i) x[i] = static_cast<float>(static_cast<int8_t>(random())) * 0.1f;
}

struct Made {
  const ort::CustomOp* op;
  const ort::Api* api;
  OrtKernelInfo info;
  void* kernel = nullptr;
};

void make(Made& made) {
  const std::string refusal = message(made.op->CreateKernelV2(made.op, made.api, &made.info, &made.kernel));
  need(refusal.empty() && made.kernel != nullptr, "the kernel is made without " + refusal);
}

void drop(Made& made) {
  made.op->KernelDestroy(made.kernel);
}

template <class Input, class Result>
void run(const Made& made, Random& random, std::vector<int64_t> dims, size_t threads) {
  OrtValue x{made.op->GetInputType(made.op, 0), std::move(dims), {}};
  x.allocate();
  fill(random, x.elements<Input>(), x.count());
  OrtKernelContext context{&x, {}, made.op->GetOutputType(made.op, 0), threads};
  const std::string refusal = message(made.op->KernelComputeV2(made.kernel, &context));
  need(refusal.empty(), "runs without " + refusal);
  need(context.y.dims == x.dims, "Y has the shape of X");
  if (x.count() == 0) return;
  const size_t n = static_cast<size_t>(x.dims.back()), heads = made.info.ints.at("B").size();
  const size_t rows = x.count() / n, per_head = rows / static_cast<size_t>(x.dims[0]);
  const Form form{Reciprocal::kNorm, made.info.integers.at("masked") == 1, made.info.reals.at("mask_gap")};
  std::vector<Result> needed(n);
  for (size_t row = 0; row < rows; ++row) {
    const size_t h = row / per_head % heads;
    const auto entry = [&](const char* name) { return static_cast<int32_t>(made.info.ints.at(name)[h]); };
    const Head head{entry("B"), entry("S"), entry("Dmax"), made.info.floats.at("scale")[h]};
    test::define_row(x.elements<Input>() + row * n, needed.data(), n, head, form);
    const Result* y = context.y.elements<Result>() + row * n;
    need(std::equal(needed.begin(), needed.end(), y), "row " + std::to_string(row) + " is as defined");
  }
}

void run_any(size_t form, const Made& made, Random& random, const std::vector<int64_t>& dims, size_t threads) {
  if (form == 0) run<int8_t, uint8_t>(made, random, dims, threads);
  if (form == 1) run<int8_t, int16_t>(made, random, dims, threads);
  if (form == 2) run<float, float>(made, random, dims, threads);
}

void infer(const Made& made) {
  OrtShapeInferContext context;
  context.inputs[0] = {made.op->GetInputType(made.op, 0), {-1, 2, 7}, {"batch", "", ""}};
  context.inputs[1].type = made.op->GetInputType(made.op, 1);
  need(message(made.op->InferOutputShapeFn(made.op, &context)).empty(), "infers the shape");
  need(context.output.type == context.inputs[1].type, "Y has the type of the zero point");
  need(context.output.dims == std::vector<int64_t>({-1, 2, 7}), "Y has the declared shape of X");
}

void be_refused(Made made, Random& random) {
  const char* const lists[] = {"B", "S", "Dmax"};
  made.info.ints[lists[random() % 3]][0] = -5;
  const std::string refusal = message(made.op->CreateKernelV2(made.op, made.api, &made.info, &made.kernel));
  need(refusal.find("node 'sm': head 0: ") == 0 && refusal.find("(-5, needs >= ") != std::string::npos,
       "an illegal node is refused with a reason, not '" + refusal + "'");
  OrtSessionOptions options;
  const std::string too_old = message(RegisterCustomOps(&options, base(kRuntimes)));
  need(too_old.find("too old (1.16.3, needs >= 1.17)") != std::string::npos, "an old runtime is refused: " + too_old);
}

// One thread's work: kernels of its own, and those that all threads share.
void work(uint64_t seed, int rounds, OrtSessionOptions (&shared_options)[kRuntimes],
          const std::vector<Made>& shared_kernels) {
  Random random(seed);
  for (int round = 0; round < rounds; ++round) {
    const size_t runtime = random() % kRuntimes, form = random() % 3;
    OrtSessionOptions own;
    register_in(own, runtime);
    const auto ops = register_in(own, runtime);
    need(register_in(shared_options[runtime], runtime) == ops, "a runtime has one set of ops");
    Made made{ops[form], api(runtime), legal_node(random, 1 + random() % 3), nullptr};
    be_refused(made, random);
    infer(made);
    make(made);
    const int64_t heads = static_cast<int64_t>(made.info.ints["B"].size());
    const int64_t n = 1 + static_cast<int64_t>(random() % 200);
    run_any(form, made, random, {2 * heads, 3, n}, 1);
    run_any(form, made, random, {heads, 2, 0}, 2);
    run_any(form, made, random, {0, 2, n}, 2);
    if (round % 4 == 0) run_any(form, made, random, {heads, 700, 333}, 3);  // is cut into chunks
    const size_t which = random() % shared_kernels.size();
    run_any(which % 3, shared_kernels[which], random, {2, 4, n}, 1);
    if (round % 4 == 2) run_any(which % 3, shared_kernels[which], random, {2, 900, 200}, 3);
    drop(made);
  }
}

int drive(size_t threads, int rounds) {
  // The first registrations race too, and so come before anything that would have made the domains.
  OrtSessionOptions shared_options[kRuntimes];
  std::vector<std::thread> running;
  for (size_t i = 0; i < threads; ++i) {
    running.emplace_back([&, i] { register_in(shared_options[i % kRuntimes], i % kRuntimes); });
  }
  for (std::thread& thread : running) thread.join();
  running.clear();

  Random random(1);
  std::vector<Made> shared_kernels;
  for (size_t runtime = 0; runtime < kRuntimes; ++runtime) {
    const auto ops = register_in(shared_options[runtime], runtime);
    for (const ort::CustomOp* op : ops) shared_kernels.push_back({op, api(runtime), legal_node(random, 2), nullptr});
  }
  for (Made& made : shared_kernels) make(made);
  for (size_t i = 0; i < threads; ++i) {
    running.emplace_back([&, i] { work(i, rounds, shared_options, shared_kernels); });
  }
  for (std::thread& thread : running) thread.join();
  for (Made& made : shared_kernels) drop(made);
  need(handed_out == 0, std::to_string(handed_out) + " statuses and infos left, none");
  std::printf("%zu threads, %d rounds each: all as defined\n", threads, rounds);
  return 0;
}

}  // namespace
}  // namespace hccs::fake

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 8, rounds = argc > 2 ? std::atoi(argv[2]) : 40;
  return hccs::fake::drive(static_cast<size_t>(threads), rounds);
}
