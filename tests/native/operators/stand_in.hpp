// tests/native/operators/stand_in.hpp - what our operators use of onnxruntime, for one node at a time: attributes, inputs
// that end where their memory does, one output, and threads. So the sanitizers see all of an operator's work;
// onnxruntime is built without them, and its arena hides what is read behind a tensor.
#pragma once

#include <array>
#include <atomic>
#include <bit>
#include <cstring>
#include <map>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "operators/operator.hpp"

namespace sabiyarn::stand_in {

struct Tensor {
  int type = ort::kFloat;
  std::vector<std::int64_t> shape;
  std::vector<std::byte> data;
};

using NodeAttributes = std::map<std::string, std::int64_t>;

struct Call {
  std::vector<const Tensor*> inputs;  // null: left out
  Tensor output;
  unsigned threads = 1;
};

namespace entries {

inline ort::Status* status_of(std::string message) {
  return reinterpret_cast<ort::Status*>(new std::string(std::move(message)));
}
inline Call& call_of(ort::KernelContext* context) { return *reinterpret_cast<Call*>(context); }

inline ort::Status* create_status(int, const char* message) { return status_of(message); }
inline const char* message(const ort::Status* status) {
  return reinterpret_cast<const std::string*>(status)->c_str();
}
inline void release_status(ort::Status* status) { delete reinterpret_cast<std::string*>(status); }
inline void release_shape(ort::ShapeInfo*) {}  // it is the tensor itself

inline ort::Status* attribute(const ort::KernelInfo* info, const char* name, std::int64_t* out) {
  const auto& attributes = *reinterpret_cast<const NodeAttributes*>(info);
  const auto found = attributes.find(name);
  if (found == attributes.end()) return status_of("no such attribute");
  *out = found->second;
  return nullptr;
}
inline ort::Status* input(ort::KernelContext* context, std::size_t index, const ort::Value** out) {
  const auto& inputs = call_of(context).inputs;
  *out = index < inputs.size() ? reinterpret_cast<const ort::Value*>(inputs[index]) : nullptr;
  return nullptr;
}
inline ort::Status* shape(const ort::Value* value, ort::ShapeInfo** out) {
  *out = reinterpret_cast<ort::ShapeInfo*>(const_cast<ort::Value*>(value));
  return nullptr;
}
inline ort::Status* rank(const ort::ShapeInfo* info, std::size_t* out) {
  *out = reinterpret_cast<const Tensor*>(info)->shape.size();
  return nullptr;
}
inline ort::Status* dimensions(const ort::ShapeInfo* info, std::int64_t* out, std::size_t count) {
  const Tensor& tensor = *reinterpret_cast<const Tensor*>(info);
  for (std::size_t i = 0; i < count; ++i) out[i] = tensor.shape[i];
  return nullptr;
}
inline ort::Status* element_type(const ort::ShapeInfo* info, int* out) {
  *out = reinterpret_cast<const Tensor*>(info)->type;
  return nullptr;
}
inline ort::Status* data(ort::Value* value, void** out) {
  Tensor& tensor = *reinterpret_cast<Tensor*>(value);
  *out = tensor.data.empty() ? nullptr : tensor.data.data();
  return nullptr;
}
inline ort::Status* output(ort::KernelContext* context, std::size_t, const std::int64_t* dimensions,
                           std::size_t count, ort::Value** out) {
  Tensor& tensor = call_of(context).output;
  tensor.shape.assign(dimensions, dimensions + count);
  std::size_t size = sizeof(float);
  for (const std::int64_t length : tensor.shape) size *= static_cast<std::size_t>(length);
  tensor.data.assign(size, std::byte{0xff});
  *out = reinterpret_cast<ort::Value*>(&tensor);
  return nullptr;
}
inline ort::Status* parallel_for(ort::KernelContext* context, void (*task)(void*, std::size_t),
                                 std::size_t total, std::size_t, void* data) {
  std::atomic<std::size_t> next = 0;
  const auto work = [&] {
    for (std::size_t i = next++; i < total; i = next++) task(data, i);
  };
  std::vector<std::thread> others;
  for (unsigned i = 1; i < call_of(context).threads; ++i) others.emplace_back(work);
  work();
  for (std::thread& other : others) other.join();
  return nullptr;
}

}  // namespace entries

inline const ort::Api& api() {
  static const auto table = [] {
    std::array<void*, std::size(ort::Api{}.entries)> places{};
    const auto put = [&](std::size_t place, auto* function) {
      places[place] = reinterpret_cast<void*>(function);
    };
    put(0, entries::create_status);
    put(2, entries::message);
    put(51, entries::data);
    put(60, entries::element_type);
    put(61, entries::rank);
    put(62, entries::dimensions);
    put(65, entries::shape);
    put(86, entries::attribute);
    put(90, entries::input);
    put(91, entries::output);
    put(93, entries::release_status);
    put(99, entries::release_shape);
    put(274, entries::parallel_for);
    return std::bit_cast<ort::Api>(places);
  }();
  return table;
}

// The output, or what the operator says against its attributes or inputs.
struct Outcome {
  std::optional<Tensor> output;
  std::string refusal;
};

template <typename Kernel>
Outcome run(const NodeAttributes& attributes, const std::vector<const Tensor*>& inputs, unsigned threads) {
  static const Operator<Kernel> op;
  Outcome outcome;
  const auto refused = [&](ort::Status* status) {
    if (status == nullptr) return false;
    outcome.refusal = api().message(status);
    api().release(status);
    return true;
  };
  void* kernel = nullptr;
  if (refused(
          op.create_kernel_v2(&op, &api(), reinterpret_cast<const ort::KernelInfo*>(&attributes), &kernel))) {
    return outcome;
  }
  Call call{inputs, {}, threads};
  if (!refused(op.compute_v2(kernel, reinterpret_cast<ort::KernelContext*>(&call)))) {
    outcome.output = std::move(call.output);
  }
  op.destroy_kernel(kernel);
  return outcome;
}

}  // namespace sabiyarn::stand_in
