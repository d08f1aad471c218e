// The part of ONNX Runtime's stable C ABI that this library uses, declared by ourselves.
//
// ONNX Runtime hands out a table of function pointers that only ever grows at its end, and GetApi(v) answers for every
// version v up to the runtime's own. So a library that asks for version 17 and calls only what was in the table then
// runs on 1.17 and everything newer. Slots that we never call are gaps; the place of every slot that we call is
// asserted below. Names are ONNX Runtime's own, without the Ort prefix.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(_WIN32)
#define HCCS_ORT_CALL __stdcall
#else
#define HCCS_ORT_CALL
#endif

// Opaque to us.
struct OrtStatus;
struct OrtValue;
struct OrtTypeInfo;
struct OrtTensorTypeAndShapeInfo;
struct OrtKernelInfo;
struct OrtKernelContext;
struct OrtShapeInferContext;
struct OrtSessionOptions;
struct OrtCustomOpDomain;

namespace hccs::ort {

constexpr uint32_t kApiVersion = 17;  // the first with shape inference of custom ops, which int16 outputs need

enum ErrorCode : int { kFail = 1, kInvalidArgument = 2 };
enum ElementType : int { kUndefined = 0, kFloat = 1, kUint8 = 2, kInt8 = 3, kInt16 = 5 };
enum Characteristic : int { kRequired = 0 };
enum MemoryType : int { kDefaultMemory = 0 };

using ParallelTask = void (*)(void* data, size_t index);

template <class Result, class... Arguments>
using Function = Result(HCCS_ORT_CALL*)(Arguments...);
template <class... Arguments>
using Call = Function<OrtStatus*, Arguments...>;  // null means success; otherwise the caller releases the status
template <size_t kSlots>
using Gap = void* [kSlots];

struct Api {
  Call<ErrorCode, const char*> CreateStatus;
  Gap<1> gap_1;
  Function<const char*, const OrtStatus*> GetErrorMessage;
  Gap<23> gap_3;
  Call<const char*, OrtCustomOpDomain**> CreateCustomOpDomain;
  Call<OrtCustomOpDomain*, const struct CustomOp*> CustomOpDomain_Add;
  Call<OrtSessionOptions*, OrtCustomOpDomain*> AddCustomOpDomain;
  Gap<22> gap_29;
  Call<OrtValue*, void**> GetTensorMutableData;
  Gap<3> gap_52;
  Call<const OrtTypeInfo*, const OrtTensorTypeAndShapeInfo**> CastTypeInfoToTensorInfo;
  Gap<2> gap_56;
  Call<OrtTensorTypeAndShapeInfo*, ElementType> SetTensorElementType;
  Gap<1> gap_59;
  Call<const OrtTensorTypeAndShapeInfo*, ElementType*> GetTensorElementType;
  Call<const OrtTensorTypeAndShapeInfo*, size_t*> GetDimensionsCount;
  Call<const OrtTensorTypeAndShapeInfo*, int64_t*, size_t> GetDimensions;
  Call<const OrtTensorTypeAndShapeInfo*, const char**, size_t> GetSymbolicDimensions;
  Gap<1> gap_64;
  Call<const OrtValue*, OrtTensorTypeAndShapeInfo**> GetTensorTypeAndShape;
  Gap<19> gap_66;
  Call<const OrtKernelInfo*, const char*, float*> KernelInfoGetAttribute_float;
  Call<const OrtKernelInfo*, const char*, int64_t*> KernelInfoGetAttribute_int64;
  Call<const OrtKernelInfo*, const char*, char*, size_t*> KernelInfoGetAttribute_string;
  Gap<2> gap_88;
  Call<const OrtKernelContext*, size_t, const OrtValue**> KernelContext_GetInput;
  Call<OrtKernelContext*, size_t, const int64_t*, size_t, OrtValue**> KernelContext_GetOutput;
  Gap<1> gap_92;
  Function<void, OrtStatus*> ReleaseStatus;
  Gap<4> gap_94;
  Function<void, OrtTypeInfo*> ReleaseTypeInfo;
  Function<void, OrtTensorTypeAndShapeInfo*> ReleaseTensorTypeAndShapeInfo;
  Gap<1> gap_100;
  Function<void, OrtCustomOpDomain*> ReleaseCustomOpDomain;
  Gap<28> gap_102;
  Call<OrtSessionOptions*, const char*, const char*> AddSessionConfigEntry;
  Gap<31> gap_131;
  Call<const OrtKernelInfo*, const char*, float*, size_t*> KernelInfoGetAttributeArray_float;
  Call<const OrtKernelInfo*, const char*, int64_t*, size_t*> KernelInfoGetAttributeArray_int64;
  Gap<70> gap_164;
  Call<const OrtKernelInfo*, size_t, OrtTypeInfo**> KernelInfo_GetInputTypeInfo;
  Gap<2> gap_235;
  Call<const OrtSessionOptions*, const char*, int*> HasSessionConfigEntry;
  Gap<6> gap_238;
  Call<const OrtKernelInfo*, char*, size_t*> KernelInfo_GetNodeName;
  Gap<23> gap_245;
  Call<const OrtShapeInferContext*, size_t, OrtTensorTypeAndShapeInfo**> ShapeInferContext_GetInputTypeShape;
  Gap<1> gap_269;
  Call<const OrtShapeInferContext*, size_t, const OrtTensorTypeAndShapeInfo*> ShapeInferContext_SetOutputTypeShape;
  Gap<3> gap_271;
  Call<const OrtKernelContext*, ParallelTask, size_t, size_t, void*> KernelContext_ParallelFor;
};

#define HCCS_ASSERT_SLOT(table, name, slot) \
  static_assert(offsetof(table, name) == (slot) * sizeof(void*), #table "::" #name " is not in slot " #slot)
HCCS_ASSERT_SLOT(Api, CreateStatus, 0);
HCCS_ASSERT_SLOT(Api, GetErrorMessage, 2);
HCCS_ASSERT_SLOT(Api, CreateCustomOpDomain, 26);
HCCS_ASSERT_SLOT(Api, CustomOpDomain_Add, 27);
HCCS_ASSERT_SLOT(Api, AddCustomOpDomain, 28);
HCCS_ASSERT_SLOT(Api, GetTensorMutableData, 51);
HCCS_ASSERT_SLOT(Api, CastTypeInfoToTensorInfo, 55);
HCCS_ASSERT_SLOT(Api, SetTensorElementType, 58);
HCCS_ASSERT_SLOT(Api, GetTensorElementType, 60);
HCCS_ASSERT_SLOT(Api, GetDimensionsCount, 61);
HCCS_ASSERT_SLOT(Api, GetDimensions, 62);
HCCS_ASSERT_SLOT(Api, GetSymbolicDimensions, 63);
HCCS_ASSERT_SLOT(Api, GetTensorTypeAndShape, 65);
HCCS_ASSERT_SLOT(Api, KernelInfoGetAttribute_float, 85);
HCCS_ASSERT_SLOT(Api, KernelInfoGetAttribute_int64, 86);
HCCS_ASSERT_SLOT(Api, KernelInfoGetAttribute_string, 87);
HCCS_ASSERT_SLOT(Api, KernelContext_GetInput, 90);
HCCS_ASSERT_SLOT(Api, KernelContext_GetOutput, 91);
HCCS_ASSERT_SLOT(Api, ReleaseStatus, 93);
HCCS_ASSERT_SLOT(Api, ReleaseTypeInfo, 98);
HCCS_ASSERT_SLOT(Api, ReleaseTensorTypeAndShapeInfo, 99);
HCCS_ASSERT_SLOT(Api, ReleaseCustomOpDomain, 101);
HCCS_ASSERT_SLOT(Api, AddSessionConfigEntry, 130);
HCCS_ASSERT_SLOT(Api, KernelInfoGetAttributeArray_float, 162);
HCCS_ASSERT_SLOT(Api, KernelInfoGetAttributeArray_int64, 163);
HCCS_ASSERT_SLOT(Api, KernelInfo_GetInputTypeInfo, 234);
HCCS_ASSERT_SLOT(Api, HasSessionConfigEntry, 237);
HCCS_ASSERT_SLOT(Api, KernelInfo_GetNodeName, 244);
HCCS_ASSERT_SLOT(Api, ShapeInferContext_GetInputTypeShape, 268);
HCCS_ASSERT_SLOT(Api, ShapeInferContext_SetOutputTypeShape, 270);
HCCS_ASSERT_SLOT(Api, KernelContext_ParallelFor, 274);

// What ONNX Runtime reads of a custom op. `version` tells it how far: 17 means up to GetEndVersion. It calls every
// pointer up to there but CreateKernel and KernelCompute, which the V2 forms replace, and those it may leave null.
struct CustomOp {
  uint32_t version;
  Function<void*, const CustomOp*, const Api*, const OrtKernelInfo*> CreateKernel;
  Function<const char*, const CustomOp*> GetName;
  Function<const char*, const CustomOp*> GetExecutionProviderType;
  Function<ElementType, const CustomOp*, size_t> GetInputType;
  Function<size_t, const CustomOp*> GetInputTypeCount;
  Function<ElementType, const CustomOp*, size_t> GetOutputType;
  Function<size_t, const CustomOp*> GetOutputTypeCount;
  Function<void, void*, OrtKernelContext*> KernelCompute;
  Function<void, void*> KernelDestroy;
  Function<Characteristic, const CustomOp*, size_t> GetInputCharacteristic;
  Function<Characteristic, const CustomOp*, size_t> GetOutputCharacteristic;
  Function<MemoryType, const CustomOp*, size_t> GetInputMemoryType;
  Function<int, const CustomOp*> GetVariadicInputMinArity;
  Function<int, const CustomOp*> GetVariadicInputHomogeneity;
  Function<int, const CustomOp*> GetVariadicOutputMinArity;
  Function<int, const CustomOp*> GetVariadicOutputHomogeneity;
  Call<const CustomOp*, const Api*, const OrtKernelInfo*, void**> CreateKernelV2;
  Call<void*, OrtKernelContext*> KernelComputeV2;
  Call<const CustomOp*, OrtShapeInferContext*> InferOutputShapeFn;
  Function<int, const CustomOp*> GetStartVersion;
  Function<int, const CustomOp*> GetEndVersion;
};
HCCS_ASSERT_SLOT(CustomOp, CreateKernel, 1);
HCCS_ASSERT_SLOT(CustomOp, KernelDestroy, 9);
HCCS_ASSERT_SLOT(CustomOp, CreateKernelV2, 17);
HCCS_ASSERT_SLOT(CustomOp, InferOutputShapeFn, 19);
HCCS_ASSERT_SLOT(CustomOp, GetEndVersion, 21);
static_assert(sizeof(CustomOp) == 22 * sizeof(void*), "OrtCustomOp of API 17 has 22 fields");
#undef HCCS_ASSERT_SLOT

}  // namespace hccs::ort

struct OrtApiBase {
  hccs::ort::Function<const hccs::ort::Api*, uint32_t> GetApi;  // null when the runtime is older than asked for
  hccs::ort::Function<const char*> GetVersionString;
};
