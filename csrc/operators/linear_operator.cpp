#include "operators/linear_operator.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "core/kernels/linear.hpp"
#include "core/kernels/linear_tasks.hpp"
#include "operators/input_shapes.hpp"

namespace sabiyarn {

namespace {

template <typename Task>
void for_each_row(Context& context, std::int64_t num_rows, const Task& task) {
  sabiyarn::for_each_row([&](std::int64_t count, const auto& group) { context.parallel_for(count, group); },
                         num_rows, task);
}

TiledMatrix described_by(const Attributes& attributes) {
  TiledMatrix matrix{nullptr, attributes.integer("N"), attributes.integer("K"),
                     WeightType{attributes.integer("weight_type")}, 0};
  if (has_blocks(matrix.type)) matrix.block = attributes.integer("block_size");
  matrix.check_shape();
  return matrix;
}

}  // namespace

TiledWeights::TiledWeights(const Attributes& attributes) : shape_(described_by(attributes)) {}

TiledMatrix TiledWeights::over(const Input& weights) const {
  TiledMatrix matrix = shape_;
  matrix.data = weights.as<std::byte>();
  matrix.check_size(static_cast<std::size_t>(product(weights.shape, weights.shape.size())));
  return matrix;
}

void LinearOperator::compute(Context& context) const {
  const Input x = context.input(0), bias = context.input(2), residual = context.input(3);
  const Input norm_scale = context.input(4), norm_bias = context.input(5);
  const TiledMatrix weights = weights_.over(context.input(1));
  if (x.shape.empty() || x.shape.back() != weights.inputs) {
    throw std::invalid_argument("x has shape " + text_of(x.shape) + "; its last dimension must be the " +
                                std::to_string(weights.inputs) + " inputs of the weights");
  }
  const std::int64_t num_rows = product(x.shape, x.shape.size() - 1);
  std::vector<std::int64_t> shape(x.shape.begin(), x.shape.end());
  shape.back() = weights.outputs;
  check_shape(bias, "bias", {weights.outputs});
  check_shape(residual, "residual", shape);
  check_shape(norm_scale, "norm_scale", {weights.inputs});
  check_shape(norm_bias, "norm_bias", {weights.inputs});
  if (norm_bias && !norm_scale) throw std::invalid_argument("norm_bias is given without norm_scale");
  const LinearOutput output{context.output<float>(0, shape), bias.as<float>(), residual.as<float>(), gelu_};
  if (num_rows == 0) return;

  const LinearKernels& kernels = *linear_kernels().front();
  const Norm norm{norm_scale.as<float>(), norm_bias.as<float>()};
  const auto* values = x.as<float>();
  // Memory of this thread, which the worker threads must see, kept for the next product: a step allocates nothing.
  thread_local QuantizedBuffer own_buffer;
  thread_local std::vector<float> own_normalized;
  QuantizedActivations rounded{};
  if (is_float(weights.type)) {
    if (norm_scale) {
      std::vector<float>& normalized = own_normalized;
      resize_anew(normalized, static_cast<std::size_t>(num_rows * weights.inputs));
      for_each_row(context, num_rows, [&](std::int64_t row) {
        kernels.normalize(values + row * weights.inputs, weights.inputs, norm,
                          normalized.data() + row * weights.inputs);
      });
      values = normalized.data();
    }
  } else {
    own_buffer.resize(QuantizedBuffer::room(num_rows), weights.inputs, weights.block);
    rounded = own_buffer.rows(0, num_rows);
    for_each_row(context, num_rows, [&](std::int64_t row) {
      const float* source = values + row * weights.inputs;
      if (norm_scale) {
        thread_local std::vector<float> normalized;
        normalized.resize(static_cast<std::size_t>(weights.inputs));
        kernels.normalize(source, weights.inputs, norm, normalized.data());
        source = normalized.data();
      }
      kernels.round_row(source, row, rounded);
    });
  }
  const std::int64_t tiles = weights.tiles(), per_task = tiles_per_task(weights, num_rows);
  context.parallel_for((tiles + per_task - 1) / per_task, [&](std::int64_t task) {
    const std::int64_t first = task * per_task, end = std::min(first + per_task, tiles);
    if (is_float(weights.type)) {
      kernels.multiply_floats(weights, values, num_rows, first, end, output);
    } else {
      kernels.multiply(weights, rounded, first, end, output);
    }
  });
}

void ResidualNormOperator::compute(Context& context) const {
  const Input x = context.input(0);
  const Input scale[2] = {context.input(1), context.input(2)}, bias[2] = {context.input(3), context.input(4)};
  if (x.shape.empty() || x.shape.back() % kTileOutputs != 0) {
    throw std::invalid_argument("x has shape " + text_of(x.shape) +
                                "; its last dimension must be a multiple of 8");
  }
  const std::int64_t width = x.shape.back(), num_rows = product(x.shape, x.shape.size() - 1);
  check_shape(scale[0], "first_scale", {width});
  check_shape(bias[0], "first_bias", {width});
  check_shape(scale[1], "second_scale", {width});
  check_shape(bias[1], "second_bias", {width});
  float* out = context.output<float>(0, x.shape);
  if (num_rows == 0) return;
  const LinearKernels& kernels = *linear_kernels().front();
  for_each_row(context, num_rows, [&](std::int64_t row) {
    const float* from = x.as<float>() + row * width;
    float* to = out + row * width;
    kernels.normalize(from, width, {scale[0].as<float>(), bias[0].as<float>()}, to);
    kernels.normalize(to, width, {scale[1].as<float>(), bias[1].as<float>()}, to);
    for (std::int64_t k = 0; k < width; ++k) to[k] += from[k];
  });
}

void EmbeddingOperator::compute(Context& context) const {
  const Input ids = context.input(0);
  const TiledMatrix table = table_.over(context.input(1));
  const std::int64_t count = product(ids.shape, ids.shape.size());
  std::vector<std::int64_t> shape(ids.shape.begin(), ids.shape.end());
  shape.push_back(table.inputs);
  float* out = context.output<float>(0, shape);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t id = ids.as<std::int64_t>()[i];
    if (id < 0 || id >= table.outputs) {
      throw std::invalid_argument("ids hold " + std::to_string(id) + "; the table has the ids 0 to " +
                                  std::to_string(table.outputs - 1));
    }
    read_row(table, id, out + i * table.inputs);
  }
}

}  // namespace sabiyarn
