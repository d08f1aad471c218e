// A program without Python that runs a model on the native library, as any language does: through ONNX Runtime's C API.
//
// Usage: c_client RUNTIME LIBRARY MODEL DIM DIM DIM DIM <floats >floats
//
// The C API is a table of functions at fixed places, which is all that is used of it here, as its header comes with no
// Python package. The model has one float input X and one float output Y of the same shape.
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct {
  void* const* (*GetApi)(uint32_t version);
  const char* (*GetVersionString)(void);
} ApiBase;

// Places in the table of version 17.
enum {
  kGetErrorMessage = 2,
  kCreateEnv = 3,
  kCreateSession = 7,
  kRun = 9,
  kCreateSessionOptions = 10,
  kCreateTensorWithData = 49,
  kGetTensorMutableData = 51,
  kCreateCpuMemoryInfo = 69,
  kReleaseEnv = 92,
  kReleaseMemoryInfo = 94,
  kReleaseSession = 95,
  kReleaseValue = 96,
  kReleaseSessionOptions = 100,
  kRegisterCustomOpsLibrary_V2 = 228,
};
enum { kFloat = 1, kWarning = 2, kRank = 4 };

static void* const* api;

// Ends the program if a call failed.
static void check(void* status) {
  if (status == NULL) return;
  fprintf(stderr, "%s\n", ((const char* (*)(void*))api[kGetErrorMessage])(status));
  exit(1);
}

static void release(int place, void* thing) {
  ((void (*)(void*))api[place])(thing);
}

int main(int count, char** words) {
  if (count != 4 + kRank) return 2;
  void* runtime = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
  if (runtime == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return 3;
  }
  const ApiBase* (*get_base)(void) = (const ApiBase* (*)(void))dlsym(runtime, "OrtGetApiBase");
  if (get_base == NULL) return 3;
  api = get_base()->GetApi(17);

  int64_t shape[kRank];
  size_t size = 1;
  for (int i = 0; i < kRank; ++i) size *= (size_t)(shape[i] = atoll(words[4 + i]));
  float* x = malloc(size * sizeof *x);
  if (fread(x, sizeof *x, size, stdin) != size) return 2;

  void *env, *options, *session, *info, *input, *output = NULL;
  check(((void* (*)(int, const char*, void**))api[kCreateEnv])(kWarning, "c_client", &env));
  check(((void* (*)(void**))api[kCreateSessionOptions])(&options));
  check(((void* (*)(void*, const char*))api[kRegisterCustomOpsLibrary_V2])(options, words[2]));
  check(((void* (*)(void*, const char*, void*, void**))api[kCreateSession])(env, words[3], options, &session));
  release(kReleaseSessionOptions, options);  // the session keeps the library

  check(((void* (*)(int, int, void**))api[kCreateCpuMemoryInfo])(0, 0, &info));
  check(((void* (*)(void*, void*, size_t, const int64_t*, size_t, int, void**))api[kCreateTensorWithData])(
      info, x, size * sizeof *x, shape, kRank, kFloat, &input));
  const char *x_name = "X", *y_name = "Y";
  check(((void* (*)(void*, void*, const char* const*, void* const*, size_t, const char* const*, size_t,
                    void**))api[kRun])(session, NULL, &x_name, &input, 1, &y_name, 1, &output));
  float* y;
  check(((void* (*)(void*, void**))api[kGetTensorMutableData])(output, (void**)&y));
  const int written = fwrite(y, sizeof *y, size, stdout) == size;

  release(kReleaseValue, output);
  release(kReleaseValue, input);
  release(kReleaseMemoryInfo, info);
  release(kReleaseSession, session);
  release(kReleaseEnv, env);
  free(x);
  return written ? 0 : 4;
}
