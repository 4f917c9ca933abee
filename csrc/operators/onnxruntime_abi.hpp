// csrc/operators/onnxruntime_abi.hpp - the part of onnxruntime's C interface that operators of our own need.
//
// onnxruntime's packages bring no headers, but its binary interface never changes: a table of functions that
// only grows at its end, asked for by the version that first had all of them. So the few entries that are
// used here are named by their place in that table (onnxruntime_c_api.h of its repository: OrtApi,
// OrtCustomOp). Opaque types stay opaque.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sabiyarn::ort {

inline constexpr std::uint32_t kApiVersion = 24;  // the first with GetTensorElementTypeAndShapeDataReference

struct Status;
struct Value;
struct KernelInfo;
struct KernelContext;
struct SessionOptions;
struct CustomOpDomain;

struct Api {
  void* const entries[415];

  template <typename Function>
  Function entry(std::size_t place) const noexcept {
    return reinterpret_cast<Function>(entries[place]);
  }

  Status* create_status(int code, const char* message) const noexcept {
    return entry<Status* (*)(int, const char*)>(0)(code, message);
  }
  const char* message(const Status* status) const noexcept {
    return entry<const char* (*)(const Status*)>(2)(status);
  }
  Status* create_domain(const char* name, CustomOpDomain** out) const noexcept {
    return entry<Status* (*)(const char*, CustomOpDomain**)>(26)(name, out);
  }
  Status* add_operator(CustomOpDomain* domain, const void* op) const noexcept {
    return entry<Status* (*)(CustomOpDomain*, const void*)>(27)(domain, op);
  }
  Status* add_domain(SessionOptions* options, CustomOpDomain* domain) const noexcept {
    return entry<Status* (*)(SessionOptions*, CustomOpDomain*)>(28)(options, domain);
  }
  Status* data(Value* value, void** out) const noexcept {
    return entry<Status* (*)(Value*, void**)>(51)(value, out);
  }
  Status* attribute(const KernelInfo* info, const char* name, std::int64_t* out) const noexcept {
    return entry<Status* (*)(const KernelInfo*, const char*, std::int64_t*)>(86)(info, name, out);
  }
  Status* input(const KernelContext* context, std::size_t index, const Value** out) const noexcept {
    return entry<Status* (*)(const KernelContext*, std::size_t, const Value**)>(90)(context, index, out);
  }
  Status* output(KernelContext* context, std::size_t index, const std::int64_t* dimensions, std::size_t count,
                 Value** out) const noexcept {
    return entry<Status* (*)(KernelContext*, std::size_t, const std::int64_t*, std::size_t, Value**)>(91)(
        context, index, dimensions, count, out);
  }
  void release(Status* status) const noexcept { entry<void (*)(Status*)>(93)(status); }
  Status* parallel_for(const KernelContext* context, void (*task)(void*, std::size_t), std::size_t total,
                       void* data) const noexcept {
    return entry<Status* (*)(const KernelContext*, void (*)(void*, std::size_t), std::size_t, std::size_t,
                             void*)>(274)(context, task, total, 0, data);
  }
  // The dimensions stay the value's.
  Status* type_and_shape(const Value* value, int* type, const std::int64_t** dimensions,
                         std::size_t* count) const noexcept {
    return entry<Status* (*)(const Value*, int*, const std::int64_t**, std::size_t*)>(414)(value, type,
                                                                                           dimensions, count);
  }
};

struct ApiBase {
  const Api* (*get_api)(std::uint32_t version);
  const char* (*get_version)();
};

enum ElementType : int {
  kUndefined = 0,
  kFloat = 1,
  kUint8 = 2,
  kInt8 = 3,
  kInt32 = 6,
  kInt64 = 7,
  kFloat16 = 10
};
enum Characteristic : int { kRequired = 0, kOptional = 1 };
enum MemoryType : int { kDefaultMemory = 0 };
enum ErrorCode : int { kFail = 1, kInvalidArgument = 2 };

// An operator, as onnxruntime reads one of version 17; functions that it never calls for ours are null.
struct CustomOp {
  std::uint32_t version = 17;
  void* (*create_kernel)(const CustomOp*, const Api*, const KernelInfo*) = nullptr;
  const char* (*name)(const CustomOp*);
  const char* (*provider)(const CustomOp*);
  int (*input_type)(const CustomOp*, std::size_t);
  std::size_t (*input_count)(const CustomOp*);
  int (*output_type)(const CustomOp*, std::size_t);
  std::size_t (*output_count)(const CustomOp*);
  void (*compute)(void*, KernelContext*) = nullptr;
  void (*destroy_kernel)(void*);
  int (*input_characteristic)(const CustomOp*, std::size_t);
  int (*output_characteristic)(const CustomOp*, std::size_t);
  int (*input_memory)(const CustomOp*, std::size_t);
  int (*variadic_input_minimum)(const CustomOp*);
  int (*variadic_input_homogeneity)(const CustomOp*);
  int (*variadic_output_minimum)(const CustomOp*);
  int (*variadic_output_homogeneity)(const CustomOp*);
  Status* (*create_kernel_v2)(const CustomOp*, const Api*, const KernelInfo*, void**);
  Status* (*compute_v2)(void*, KernelContext*);
  Status* (*infer_shapes)(const CustomOp*, void*) = nullptr;
  int (*start_version)(const CustomOp*);
  int (*end_version)(const CustomOp*);
};

}  // namespace sabiyarn::ort
