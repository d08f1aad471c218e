#include "hccs/dispatch.h"

#include <cstdlib>
#include <cstring>

#include "kernel_portable.h"

#if defined(HCCS_BUILD_AVX2)
#include "kernel_avx2.h"
#endif
#if defined(HCCS_BUILD_AVX512)
#include "kernel_avx512.h"
#endif
#if defined(HCCS_BUILD_NEON)
#include "kernel_neon.h"
#endif

namespace hccs {
namespace {

// To add an instruction set: write its kernel file with a table of its own, add a line here, and give the file its
// compiler flags in CMakeLists.txt. Tester and benchmark then cover it.
const Kernels* const kList[] = {
#if defined(HCCS_BUILD_AVX512)
    &kAvx512Kernels,
#endif
#if defined(HCCS_BUILD_AVX2)
    &kAvx2Kernels,
#endif
#if defined(HCCS_BUILD_NEON)
    &kNeonKernels,
#endif
    &kPortableKernels,
};
constexpr size_t kCount = sizeof kList / sizeof kList[0];

}  // namespace

size_t kernel_count() {
  return kCount;
}

const Kernels* kernels_at(size_t index) {
  return index < kCount ? kList[index] : nullptr;
}

const Kernels* select_kernels() {
  const char* wanted = std::getenv(kKernelVariable);
  const bool free_choice = wanted == nullptr || *wanted == '\0';
  for (const Kernels* kernels : kList) {
    if ((free_choice || std::strcmp(kernels->name, wanted) == 0) && kernels->runs_here()) return kernels;
  }
  return nullptr;
}

}  // namespace hccs
