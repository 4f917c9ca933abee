// csrc/operators/operator.hpp - makes an onnxruntime operator of a class with a few members.
//
// A kernel class has
//   static constexpr const char* kName
//   static constexpr ort::ElementType kInputs[], kOutputs[]; static constexpr std::size_t kRequiredInputs
//   Kernel(const Attributes&)                   throws std::invalid_argument for attributes that do not fit
//   void compute(Context&) const                as above for inputs; may run in several threads at once
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <span>
#include <stdexcept>
#include <string>

#include "operators/onnxruntime_abi.hpp"

namespace sabiyarn {

// onnxruntime's errors, which own a message, as exceptions.
inline void check(const ort::Api& api, ort::Status* status, const char* what) {
  if (status == nullptr) return;
  const std::string message = std::string(what) + ": " + api.message(status);
  api.release(status);
  throw std::runtime_error(message);
}

class Attributes {
 public:
  Attributes(const ort::Api& api, const ort::KernelInfo* info) : api_(api), info_(info) {}
  std::int64_t integer(const char* name) const {
    std::int64_t value = 0;
    const std::string missing = std::string("attribute ") + name + " is missing, or no integer";
    check(api_, api_.attribute(info_, name, &value), missing.c_str());
    return value;
  }

 private:
  const ort::Api& api_;
  const ort::KernelInfo* info_;
};

using Shape = std::span<const std::int64_t>;

struct Input {
  const void* data = nullptr;  // null in a tensor without values too
  int type = ort::kUndefined;
  Shape shape;  // stands in onnxruntime's memory, as the data do
  bool given = false;

  explicit operator bool() const noexcept { return given; }
  template <typename T>
  const T* as() const noexcept {
    return static_cast<const T*>(data);
  }
};

class Context {
 public:
  // types: of the inputs, kUndefined: the kernel looks itself.
  Context(const ort::Api& api, ort::KernelContext* context, std::span<const ort::ElementType> types)
      : api_(api), context_(context), types_(types) {}

  // An input that is left out is not given. Its type is looked at here, as onnxruntime holds only what the graph
  // says against the operator: a caller may give another tensor in place of one of the graph's weights.
  Input input(std::size_t index) const {
    const ort::Value* value = nullptr;
    check(api_, api_.input(context_, index, &value), "an input is missing");
    Input result;
    if (value == nullptr) return result;
    result.given = true;
    const std::int64_t* dimensions = nullptr;
    std::size_t rank = 0;
    check(api_, api_.type_and_shape(value, &result.type, &dimensions, &rank), "an input is no tensor");
    result.shape = {dimensions, rank};
    if (types_[index] != ort::kUndefined && result.type != types_[index]) {
      throw std::invalid_argument("input " + std::to_string(index) + " has elements of type " +
                                  std::to_string(result.type) + ", not " + std::to_string(types_[index]));
    }
    void* data = nullptr;
    check(api_, api_.data(const_cast<ort::Value*>(value), &data), "an input has no data");
    result.data = data;
    return result;
  }

  template <typename T>
  T* output(std::size_t index, Shape shape) {
    ort::Value* value = nullptr;
    check(api_, api_.output(context_, index, shape.data(), shape.size(), &value), "no memory for an output");
    void* data = nullptr;
    check(api_, api_.data(value, &data), "an output has no data");
    return static_cast<T*>(data);
  }

  // task(i) for i < total, on onnxruntime's threads, whoever is free next.
  template <typename Task>
  void parallel_for(std::int64_t total, const Task& task) {
    if (total == 0) return;
    if (total == 1) {
      task(0);
      return;
    }
    const auto call = [](void* data, std::size_t index) {
      (*static_cast<const Task*>(data))(static_cast<std::int64_t>(index));
    };
    check(api_,
          api_.parallel_for(context_, call, static_cast<std::size_t>(total),
                            const_cast<void*>(static_cast<const void*>(&task))),
          "onnxruntime's threads refused the work");
  }

 private:
  const ort::Api& api_;
  ort::KernelContext* context_;
  std::span<const ort::ElementType> types_;
};

template <typename Kernel>
class Operator : public ort::CustomOp {
 public:
  Operator() {
    name = [](const CustomOp*) { return Kernel::kName; };
    provider = [](const CustomOp*) -> const char* { return nullptr; };  // the CPU
    input_type = [](const CustomOp*, std::size_t i) -> int { return Kernel::kInputs[i]; };
    input_count = [](const CustomOp*) { return std::size(Kernel::kInputs); };
    output_type = [](const CustomOp*, std::size_t i) -> int { return Kernel::kOutputs[i]; };
    output_count = [](const CustomOp*) { return std::size(Kernel::kOutputs); };
    destroy_kernel = [](void* kernel) { delete static_cast<Instance*>(kernel); };
    input_characteristic = [](const CustomOp*, std::size_t i) -> int {
      return i < Kernel::kRequiredInputs ? ort::kRequired : ort::kOptional;
    };
    output_characteristic = [](const CustomOp*, std::size_t) -> int { return ort::kRequired; };
    input_memory = [](const CustomOp*, std::size_t) -> int { return ort::kDefaultMemory; };
    variadic_input_minimum = variadic_output_minimum = [](const CustomOp*) { return 1; };
    variadic_input_homogeneity = variadic_output_homogeneity = [](const CustomOp*) { return 1; };
    start_version = [](const CustomOp*) { return 1; };
    end_version = [](const CustomOp*) { return 1; };
    create_kernel_v2 = [](const CustomOp*, const ort::Api* api, const ort::KernelInfo* info,
                          void** kernel) -> ort::Status* {
      return guarded(*api, [&] { *kernel = new Instance{*api, Kernel(Attributes(*api, info))}; });
    };
    compute_v2 = [](void* kernel, ort::KernelContext* context) -> ort::Status* {
      const auto& instance = *static_cast<const Instance*>(kernel);
      return guarded(instance.api, [&] {
        Context wrapped(instance.api, context, Kernel::kInputs);
        instance.kernel.compute(wrapped);
      });
    };
  }

 private:
  struct Instance {
    const ort::Api& api;
    Kernel kernel;
  };

  // No exception may reach onnxruntime.
  template <typename Action>
  static ort::Status* guarded(const ort::Api& api, const Action& action) noexcept {
    try {
      action();
      return nullptr;
    } catch (const std::exception& error) {
      return api.create_status(ort::kInvalidArgument, error.what());
    } catch (...) {
      return api.create_status(ort::kFail, "unknown error");
    }
  }
};

}  // namespace sabiyarn
