#include "op.h"

#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "attributes.h"
#include "hccs/dispatch.h"
#include "legality.h"
#include "row_job.h"
#include "status.h"

namespace hccs {
namespace {

#define HCCS_RETURN_IF_FAILED(call) \
  if (OrtStatus* status_ = (call)) return status_

// The three pairs of types.

struct ToUint8 {
  using Input = int8_t;
  using Result = uint8_t;
  static constexpr ort::ElementType kInput = ort::kInt8, kResult = ort::kUint8;
  static constexpr Output kOutput = Output::kUint8;
  static auto kernel(const Kernels& kernels) { return kernels.int8_to_uint8; }
};

struct ToInt16 {
  using Input = int8_t;
  using Result = int16_t;
  static constexpr ort::ElementType kInput = ort::kInt8, kResult = ort::kInt16;
  static constexpr Output kOutput = Output::kInt16;
  static auto kernel(const Kernels& kernels) { return kernels.int8_to_int16; }
};

struct ToFloat {
  using Input = float;
  using Result = float;
  static constexpr ort::ElementType kInput = ort::kFloat, kResult = ort::kFloat;
  static constexpr Output kOutput = Output::kFloat;
  static auto kernel(const Kernels& kernels) { return kernels.float_to_float; }
};

// Shapes.

constexpr size_t kMaxRank = 32;

struct Shape {
  size_t rank = 0;
  int64_t dims[kMaxRank] = {};  // -1 where not known

  int64_t row_length() const { return dims[rank - 1]; }
};

OrtStatus* read_shape(const ort::Api& api, const std::string& subject, const OrtTensorTypeAndShapeInfo* info,
                      Shape* shape) {
  HCCS_RETURN_IF_FAILED(api.GetDimensionsCount(info, &shape->rank));
  if (shape->rank > kMaxRank) {
    return failure(
        api, subject,
        "rank of X is too high (" + std::to_string(shape->rank) + ", needs <= " + std::to_string(kMaxRank) + ")",
        "Reshape X");
  }
  return api.GetDimensions(info, shape->dims, shape->rank);
}

// The shape of X as far as the model declares it; rank 0 where it does not.
OrtStatus* declared_shape(const ort::Api& api, const std::string& subject, const OrtKernelInfo* info, Shape* shape) {
  OrtTypeInfo* type = nullptr;
  if (failed(api, api.KernelInfo_GetInputTypeInfo(info, 0, &type)) || type == nullptr) return nullptr;
  const OrtTensorTypeAndShapeInfo* tensor = nullptr;
  OrtStatus* status = api.CastTypeInfoToTensorInfo(type, &tensor);
  if (status == nullptr && tensor != nullptr) status = read_shape(api, subject, tensor, shape);
  api.ReleaseTypeInfo(type);
  return status;
}

OrtStatus* actual_shape(const ort::Api& api, const std::string& subject, const OrtValue* value, Shape* shape) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  HCCS_RETURN_IF_FAILED(api.GetTensorTypeAndShape(value, &info));
  OrtStatus* status = read_shape(api, subject, info, shape);
  api.ReleaseTensorTypeAndShapeInfo(info);
  return status;
}

// A node.

struct Node {
  const ort::Api& api;
  std::string subject;
  Attributes attributes;
  RowLengths row_lengths;
  const Kernels* kernels;
};

// Number of rows that share a head before the next head's rows begin; or a status where the head axis does not fit.
// Axes of size -1 are not known yet and not checked.
OrtStatus* rows_per_head(const Node& node, const Shape& shape, size_t* rows) {
  *rows = 1;
  const int64_t heads = static_cast<int64_t>(node.attributes.heads.size());
  if (heads == 1) return nullptr;
  const int64_t rank = static_cast<int64_t>(shape.rank), given = node.attributes.head_axis;
  const int64_t axis = given < 0 ? given + rank : given;
  if (axis < 0 || axis >= rank - 1) {
    return failure(node.api, node.subject,
                   "head_axis is not an axis before the last of X (" + std::to_string(given) + ", needs " +
                       std::to_string(-rank) + ".." + std::to_string(rank - 2) + " but not -1)",
                   "Correct head_axis or the shape of X");
  }
  const int64_t size = shape.dims[axis];
  if (size >= 0 && size % heads != 0) {
    return failure(node.api, node.subject,
                   "head axis does not divide into the heads (size " + std::to_string(size) + ", needs a multiple of " +
                       std::to_string(heads) + ")",
                   kRecalibrate);
  }
  for (int64_t i = axis + 1; i < rank - 1; ++i) *rows *= static_cast<size_t>(shape.dims[i]);
  return nullptr;
}

OrtStatus* check_row_length(const Node& node, Output output, int64_t n) {
  if (n >= node.row_lengths.least && n <= node.row_lengths.most) return nullptr;
  return failure(node.api, node.subject, row_length_violation(node.attributes, output, n),
                 "Calibrate again for this row length or use reciprocal norm");
}

// What does depend on the shape, as far as the model declares it.
OrtStatus* check_declared_shape(const Node& node, Output output, const OrtKernelInfo* info) {
  Shape shape;
  HCCS_RETURN_IF_FAILED(declared_shape(node.api, node.subject, info, &shape));
  if (shape.rank == 0) return nullptr;
  size_t unused;
  HCCS_RETURN_IF_FAILED(rows_per_head(node, shape, &unused));
  return shape.row_length() > 0 ? check_row_length(node, output, shape.row_length()) : nullptr;
}

std::string kernel_names() {
  std::string names;
  for (size_t i = 0; i < kernel_count(); ++i) {
    if (kernels_at(i)->runs_here()) names += (names.empty() ? "" : ", ") + std::string(kernels_at(i)->name);
  }
  return names;
}

OrtStatus* make_node(const ort::Api& api, const OrtKernelInfo* info, Output output, std::unique_ptr<Node>* node) {
  std::unique_ptr<Node> made(new Node{api, node_subject(api, info), {}, {}, select_kernels()});
  if (made->kernels == nullptr) {
    const char* wanted = std::getenv(kKernelVariable);
    return failure(api, made->subject,
                   std::string(kKernelVariable) + " names no kernel that runs here ('" + (wanted ? wanted : "") +
                       "', needs one of " + kernel_names() + ")",
                   "Unset it or name another");
  }
  HCCS_RETURN_IF_FAILED(read_attributes(api, info, made->subject, output, &made->attributes));
  made->row_lengths = legal_row_lengths(made->attributes, output);
  HCCS_RETURN_IF_FAILED(check_declared_shape(*made, output, info));
  *node = std::move(made);
  return nullptr;
}

// Running.

// Both sides counted. Up to kOneThreadBytes, some ten microseconds of work, waking a second thread is not worth it.
constexpr size_t kOneThreadBytes = 256 * 1024;
constexpr size_t kChunkBytes = 128 * 1024;

template <class Types>
OrtStatus* compute(const Node& node, OrtKernelContext* context) {
  const ort::Api& api = node.api;
  const OrtValue* input = nullptr;
  Shape shape;
  HCCS_RETURN_IF_FAILED(api.KernelContext_GetInput(context, 0, &input));
  HCCS_RETURN_IF_FAILED(actual_shape(api, node.subject, input, &shape));
  if (shape.rank == 0) return failure(api, node.subject, "X is a scalar (rank 0, needs >= 1)", "Correct the model");

  size_t head_rows, rows = 1;
  HCCS_RETURN_IF_FAILED(rows_per_head(node, shape, &head_rows));
  for (size_t i = 0; i + 1 < shape.rank; ++i) rows *= static_cast<size_t>(shape.dims[i]);
  const size_t n = static_cast<size_t>(shape.row_length());
  const bool empty = rows == 0 || n == 0;
  if (n > 0) HCCS_RETURN_IF_FAILED(check_row_length(node, Types::kOutput, shape.row_length()));

  OrtValue* output = nullptr;
  void *x = nullptr, *y = nullptr;
  HCCS_RETURN_IF_FAILED(api.KernelContext_GetOutput(context, 0, shape.dims, shape.rank, &output));
  if (empty) return nullptr;
  HCCS_RETURN_IF_FAILED(api.GetTensorMutableData(const_cast<OrtValue*>(input), &x));
  HCCS_RETURN_IF_FAILED(api.GetTensorMutableData(output, &y));

  using Input = typename Types::Input;
  using Result = typename Types::Result;
  const size_t row_bytes = n * (sizeof(Input) + sizeof(Result));
  RowJob<Input, Result> job{Types::kernel(*node.kernels),
                            static_cast<const Input*>(x),
                            static_cast<Result*>(y),
                            rows,
                            n,
                            node.attributes.heads.size() == 1 ? rows : head_rows,
                            node.attributes.heads.data(),
                            node.attributes.heads.size(),
                            &node.attributes.form,
                            rows_per_chunk(row_bytes, kChunkBytes)};
  if (rows * row_bytes <= kOneThreadBytes || job.chunks() == 1) {
    job.run_all();
    return nullptr;
  }
  return api.KernelContext_ParallelFor(context, RowJob<Input, Result>::run_chunk, job.chunks(), job.chunks(), &job);
}

// Callbacks.

template <class Types>
OrtStatus* HCCS_ORT_CALL create_kernel(const ort::CustomOp*, const ort::Api* api, const OrtKernelInfo* info,
                                       void** kernel) noexcept {
  return without_exceptions(*api, [=]() -> OrtStatus* {
    std::unique_ptr<Node> node;
    HCCS_RETURN_IF_FAILED(make_node(*api, info, Types::kOutput, &node));
    *kernel = node.release();
    return nullptr;
  });
}

template <class Types>
OrtStatus* HCCS_ORT_CALL compute_kernel(void* kernel, OrtKernelContext* context) noexcept {
  const Node& node = *static_cast<const Node*>(kernel);
  return without_exceptions(node.api, [&] { return compute<Types>(node, context); });
}

void HCCS_ORT_CALL destroy_kernel(void* kernel) noexcept {
  delete static_cast<Node*>(kernel);
}

// Whether every dimension has a size or a name. One with neither would be handed on as size -1, and a rank of 0 may
// stand for a rank that is not known.
OrtStatus* can_hand_on(const ort::Api& api, const OrtTensorTypeAndShapeInfo* info, bool* can) {
  Shape shape;
  const char* names[kMaxRank] = {};
  *can = false;
  HCCS_RETURN_IF_FAILED(api.GetDimensionsCount(info, &shape.rank));
  if (shape.rank == 0 || shape.rank > kMaxRank) return nullptr;
  HCCS_RETURN_IF_FAILED(api.GetDimensions(info, shape.dims, shape.rank));
  HCCS_RETURN_IF_FAILED(api.GetSymbolicDimensions(info, names, shape.rank));
  *can = true;
  for (size_t i = 0; i < shape.rank; ++i) {
    if (shape.dims[i] < 0 && (names[i] == nullptr || *names[i] == '\0')) *can = false;
  }
  return nullptr;
}

// Y has the shape of X and the type of y_zero_point. Some runtimes take only the shape from here, others the type too;
// without a shape to hand on, they find the type by themselves.
OrtStatus* HCCS_ORT_CALL infer_shape(const ort::CustomOp* op, OrtShapeInferContext* context) noexcept {
  const ort::Api& api = *static_cast<const Op*>(op)->api;
  OrtTensorTypeAndShapeInfo *x = nullptr, *zero_point = nullptr;  // both belong to the context
  ort::ElementType type = ort::kUndefined;
  bool can = false;
  HCCS_RETURN_IF_FAILED(api.ShapeInferContext_GetInputTypeShape(context, 0, &x));
  HCCS_RETURN_IF_FAILED(api.ShapeInferContext_GetInputTypeShape(context, 1, &zero_point));
  HCCS_RETURN_IF_FAILED(can_hand_on(api, x, &can));
  if (!can) return nullptr;
  HCCS_RETURN_IF_FAILED(api.GetTensorElementType(zero_point, &type));
  HCCS_RETURN_IF_FAILED(api.SetTensorElementType(x, type));
  return api.ShapeInferContext_SetOutputTypeShape(context, 0, x);
}

ort::Characteristic HCCS_ORT_CALL required(const ort::CustomOp*, size_t) noexcept {
  return ort::kRequired;
}

int HCCS_ORT_CALL not_variadic(const ort::CustomOp*) noexcept {
  return 0;
}

template <class Types>
Op make_op(const ort::Api& api) {
  Op op{};
  op.version = ort::kApiVersion;
  op.GetName = [](const ort::CustomOp*) { return kOpName; };
  op.GetExecutionProviderType = [](const ort::CustomOp*) -> const char* { return nullptr; };  // CPU
  op.GetInputTypeCount = [](const ort::CustomOp*) -> size_t { return 2; };
  op.GetInputType = [](const ort::CustomOp*, size_t index) { return index == 0 ? Types::kInput : Types::kResult; };
  op.GetOutputTypeCount = [](const ort::CustomOp*) -> size_t { return 1; };
  op.GetOutputType = [](const ort::CustomOp*, size_t) { return Types::kResult; };
  op.GetInputCharacteristic = required;
  op.GetOutputCharacteristic = required;
  op.GetInputMemoryType = [](const ort::CustomOp*, size_t) { return ort::kDefaultMemory; };
  op.GetVariadicInputMinArity = not_variadic;
  op.GetVariadicInputHomogeneity = not_variadic;
  op.GetVariadicOutputMinArity = not_variadic;
  op.GetVariadicOutputHomogeneity = not_variadic;
  op.CreateKernelV2 = create_kernel<Types>;
  op.KernelComputeV2 = compute_kernel<Types>;
  op.KernelDestroy = destroy_kernel;
  op.InferOutputShapeFn = infer_shape;
  op.GetStartVersion = [](const ort::CustomOp*) { return 1; };
  op.GetEndVersion = [](const ort::CustomOp*) { return 1; };
  op.api = &api;
  return op;
}

}  // namespace

void make_ops(const ort::Api& api, Op (&ops)[kOpCount]) {
  ops[0] = make_op<ToUint8>(api);
  ops[1] = make_op<ToInt16>(api);
  ops[2] = make_op<ToFloat>(api);
}

}  // namespace hccs
