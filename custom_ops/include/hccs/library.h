// What the shared library hccs_onnx_ops exports.
#pragma once

#include <stddef.h>

#if defined(_WIN32)
#define HCCS_EXPORT __declspec(dllexport)
#else
#define HCCS_EXPORT __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

struct OrtStatus;
struct OrtSessionOptions;
struct OrtApiBase;

// The entry that ONNX Runtime looks up when the library is registered. Returns null on success. May be called any
// number of times, also with the same options, from any thread, by any number of ONNX Runtimes in the process.
HCCS_EXPORT struct OrtStatus* RegisterCustomOps(struct OrtSessionOptions* options, const struct OrtApiBase* api);

// For diagnostics. Kernels are numbered from 0, best first; names are never null within hccs_kernel_count().
HCCS_EXPORT size_t hccs_kernel_count(void);
HCCS_EXPORT const char* hccs_kernel_name(size_t index);  // null past the end
HCCS_EXPORT int hccs_kernel_runs_here(size_t index);     // 1 or 0; 0 past the end

// Name of the kernels that a session created now would run; null when HCCS_KERNEL names none that run here.
HCCS_EXPORT const char* hccs_selected_kernel(void);

// Oldest ONNX Runtime C API version that the library runs on: 17, that is ONNX Runtime 1.17.
HCCS_EXPORT unsigned hccs_minimum_ort_api(void);

#ifdef __cplusplus
}
#endif
