// As much of ONNX Runtime as the library calls, in a few lines of C++: what a sanitizer can see through, which the real
// one is not. Every status and every info handed out is counted, so that a forgotten release shows.
#pragma once

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "hccs/ort_abi.h"

namespace hccs::fake {

inline std::atomic<int64_t> handed_out{0};  // statuses, type infos and shape infos that are not released yet

template <class Object>
Object* hand_out(Object object) {
  ++handed_out;
  return new Object(std::move(object));
}

template <class Object>
void take_back(Object* object) {
  if (object == nullptr) return;
  --handed_out;
  delete object;
}

[[noreturn]] inline void die(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::abort();
}

}  // namespace hccs::fake

struct OrtStatus {
  std::string message;
};

struct OrtTensorTypeAndShapeInfo {
  hccs::ort::ElementType type = hccs::ort::kUndefined;
  std::vector<int64_t> dims;       // -1 where not known
  std::vector<std::string> names;  // of the dimensions; empty where there is none
};

struct OrtTypeInfo {
  OrtTensorTypeAndShapeInfo tensor;
};

struct OrtValue {
  hccs::ort::ElementType type = hccs::ort::kUndefined;
  std::vector<int64_t> dims;
  std::vector<float> memory;  // floats for their alignment

  size_t count() const {
    size_t result = 1;
    for (const int64_t dim : dims) result *= static_cast<size_t>(dim);
    return result;
  }
  void allocate() { memory.assign(count() + 1, 0.0f); }
  template <class Element>
  Element* elements() {
    return reinterpret_cast<Element*>(memory.data());
  }
};

struct OrtKernelInfo {
  std::string name;
  std::map<std::string, std::vector<int64_t>> ints;
  std::map<std::string, std::vector<float>> floats;
  std::map<std::string, int64_t> integers;
  std::map<std::string, float> reals;
  std::map<std::string, std::string> strings;
  OrtTensorTypeAndShapeInfo x;
};

struct OrtKernelContext {
  const OrtValue* x = nullptr;
  OrtValue y;
  hccs::ort::ElementType y_type = hccs::ort::kUndefined;
  size_t threads = 1;
};

struct OrtShapeInferContext {
  OrtTensorTypeAndShapeInfo inputs[2], output;
};

struct OrtCustomOpDomain {
  std::string name;
  std::vector<const hccs::ort::CustomOp*> ops;
};

struct OrtSessionOptions {
  std::mutex mutex;
  std::vector<OrtCustomOpDomain*> domains;
  std::map<std::string, std::string> config;
};

namespace hccs::fake {

inline OrtStatus* create_status(ort::ErrorCode, const char* message) {
  return hand_out(OrtStatus{message});
}

inline OrtStatus* fail(const std::string& message) {
  return hand_out(OrtStatus{message});
}

// How ONNX Runtime hands out lists and strings: their size where there is no buffer, an error where it is too small.
template <class Element>
OrtStatus* copy_out(const Element* values, size_t count, Element* buffer, size_t* size) {
  if (buffer != nullptr) {
    if (*size < count) {
      *size = count;
      return fail("buffer is too small");
    }
    std::copy(values, values + count, buffer);
  }
  *size = count;
  return nullptr;
}

template <class Map, class Value>
OrtStatus* copy_one(const Map& map, const char* name, Value* value) {
  const auto found = map.find(name);
  if (found == map.end()) return fail(std::string("no attribute ") + name);
  *value = found->second;
  return nullptr;
}

template <class Map, class Value>
OrtStatus* copy_list(const Map& map, const char* name, Value* buffer, size_t* size) {
  const auto found = map.find(name);
  if (found == map.end()) return fail(std::string("no attribute ") + name);
  return copy_out(found->second.data(), found->second.size(), buffer, size);
}

inline OrtStatus* parallel_for(const OrtKernelContext* context, ort::ParallelTask task, size_t total, size_t,
                               void* data) {
  std::atomic<size_t> next{0};
  const auto work = [&] {
    for (size_t i = next++; i < total; i = next++) task(data, i);
  };
  std::vector<std::thread> threads;
  for (size_t i = 1; i < context->threads; ++i) threads.emplace_back(work);
  work();
  for (std::thread& thread : threads) thread.join();
  return nullptr;
}

inline ort::Api make_api() {
  ort::Api api{};
  api.CreateStatus = create_status;
  api.GetErrorMessage = [](const OrtStatus* status) { return status->message.c_str(); };
  api.ReleaseStatus = [](OrtStatus* status) { take_back(status); };
  api.CreateCustomOpDomain = [](const char* name, OrtCustomOpDomain** domain) -> OrtStatus* {
    *domain = new OrtCustomOpDomain{name, {}};
    return nullptr;
  };
  api.CustomOpDomain_Add = [](OrtCustomOpDomain* domain, const ort::CustomOp* op) -> OrtStatus* {
    domain->ops.push_back(op);
    return nullptr;
  };
  api.ReleaseCustomOpDomain = [](OrtCustomOpDomain* domain) { delete domain; };
  api.AddCustomOpDomain = [](OrtSessionOptions* options, OrtCustomOpDomain* domain) -> OrtStatus* {
    const std::lock_guard<std::mutex> lock(options->mutex);
    options->domains.push_back(domain);
    return nullptr;
  };
  api.AddSessionConfigEntry = [](OrtSessionOptions* options, const char* key, const char* value) -> OrtStatus* {
    const std::lock_guard<std::mutex> lock(options->mutex);
    options->config[key] = value;
    return nullptr;
  };
  api.HasSessionConfigEntry = [](const OrtSessionOptions* options, const char* key, int* has) -> OrtStatus* {
    const std::lock_guard<std::mutex> lock(const_cast<OrtSessionOptions*>(options)->mutex);
    *has = options->config.count(key) != 0 ? 1 : 0;
    return nullptr;
  };

  api.GetTensorMutableData = [](OrtValue* value, void** data) -> OrtStatus* {
    *data = value->memory.data();
    return nullptr;
  };
  api.GetTensorTypeAndShape = [](const OrtValue* value, OrtTensorTypeAndShapeInfo** info) -> OrtStatus* {
    *info = hand_out(OrtTensorTypeAndShapeInfo{value->type, value->dims, {}});
    return nullptr;
  };
  api.ReleaseTensorTypeAndShapeInfo = [](OrtTensorTypeAndShapeInfo* info) { take_back(info); };
  api.ReleaseTypeInfo = [](OrtTypeInfo* info) { take_back(info); };
  api.CastTypeInfoToTensorInfo = [](const OrtTypeInfo* type, const OrtTensorTypeAndShapeInfo** info) -> OrtStatus* {
    *info = &type->tensor;
    return nullptr;
  };
  api.GetTensorElementType = [](const OrtTensorTypeAndShapeInfo* info, ort::ElementType* type) -> OrtStatus* {
    *type = info->type;
    return nullptr;
  };
  api.SetTensorElementType = [](OrtTensorTypeAndShapeInfo* info, ort::ElementType type) -> OrtStatus* {
    info->type = type;
    return nullptr;
  };
  api.GetDimensionsCount = [](const OrtTensorTypeAndShapeInfo* info, size_t* count) -> OrtStatus* {
    *count = info->dims.size();
    return nullptr;
  };
  api.GetDimensions = [](const OrtTensorTypeAndShapeInfo* info, int64_t* dims, size_t count) -> OrtStatus* {
    std::copy_n(info->dims.begin(), std::min(count, info->dims.size()), dims);
    return nullptr;
  };
  api.GetSymbolicDimensions = [](const OrtTensorTypeAndShapeInfo* info, const char** names,
                                 size_t count) -> OrtStatus* {
    for (size_t i = 0; i < count; ++i) names[i] = i < info->names.size() ? info->names[i].c_str() : "";
    return nullptr;
  };

  api.KernelInfo_GetNodeName = [](const OrtKernelInfo* info, char* buffer, size_t* size) {
    return copy_out(info->name.c_str(), info->name.size() + 1, buffer, size);
  };
  api.KernelInfo_GetInputTypeInfo = [](const OrtKernelInfo* info, size_t, OrtTypeInfo** type) -> OrtStatus* {
    *type = hand_out(OrtTypeInfo{info->x});
    return nullptr;
  };
  api.KernelInfoGetAttribute_float = [](const OrtKernelInfo* info, const char* name, float* value) {
    return copy_one(info->reals, name, value);
  };
  api.KernelInfoGetAttribute_int64 = [](const OrtKernelInfo* info, const char* name, int64_t* value) {
    return copy_one(info->integers, name, value);
  };
  api.KernelInfoGetAttribute_string = [](const OrtKernelInfo* info, const char* name, char* buffer, size_t* size) {
    const auto found = info->strings.find(name);
    if (found == info->strings.end()) return fail("no such string");
    return copy_out(found->second.c_str(), found->second.size() + 1, buffer, size);
  };
  api.KernelInfoGetAttributeArray_float = [](const OrtKernelInfo* info, const char* name, float* buffer, size_t* size) {
    return copy_list(info->floats, name, buffer, size);
  };
  api.KernelInfoGetAttributeArray_int64 = [](const OrtKernelInfo* info, const char* name, int64_t* buffer,
                                             size_t* size) { return copy_list(info->ints, name, buffer, size); };

  api.KernelContext_GetInput = [](const OrtKernelContext* context, size_t, const OrtValue** value) -> OrtStatus* {
    *value = context->x;
    return nullptr;
  };
  api.KernelContext_GetOutput = [](OrtKernelContext* context, size_t, const int64_t* dims, size_t rank,
                                   OrtValue** value) -> OrtStatus* {
    context->y.type = context->y_type;
    context->y.dims.assign(dims, dims + rank);
    context->y.allocate();
    *value = &context->y;
    return nullptr;
  };
  api.KernelContext_ParallelFor = parallel_for;
  api.ShapeInferContext_GetInputTypeShape = [](const OrtShapeInferContext* context, size_t index,
                                               OrtTensorTypeAndShapeInfo** info) -> OrtStatus* {
    *info = &const_cast<OrtShapeInferContext*>(context)->inputs[index];
    return nullptr;
  };
  api.ShapeInferContext_SetOutputTypeShape = [](const OrtShapeInferContext* context, size_t,
                                                const OrtTensorTypeAndShapeInfo* info) -> OrtStatus* {
    const_cast<OrtShapeInferContext*>(context)->output = *info;
    return nullptr;
  };
  return api;
}

// Runtimes: two of today, each with a table of its own, and one that is too old.
constexpr size_t kRuntimes = 2;

inline const ort::Api* api(size_t runtime) {
  static const ort::Api apis[kRuntimes] = {make_api(), make_api()};
  return &apis[runtime];
}

inline const OrtApiBase* base(size_t runtime) {
  static const OrtApiBase bases[kRuntimes + 1] = {
      {[](uint32_t version) { return version <= 17 ? api(0) : nullptr; }, [] { return "1.17.0"; }},
      {[](uint32_t version) { return version <= 25 ? api(1) : nullptr; }, [] { return "1.25.0"; }},
      {[](uint32_t version) { return version <= 16 ? api(0) : nullptr; }, [] { return "1.16.3"; }},
  };
  return &bases[runtime];
}

// The message of a status, which is released; empty where there is none.
inline std::string message(OrtStatus* status) {
  if (status == nullptr) return {};
  const std::string text = status->message;
  take_back(status);
  return text;
}

}  // namespace hccs::fake
