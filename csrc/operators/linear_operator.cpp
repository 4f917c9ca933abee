#include "operators/linear_operator.hpp"

#include <algorithm>

#include "core/kernels/linear.hpp"

namespace sabiyarn {

namespace {

// What one thread takes at a time: enough to be read in one go, little enough that slow threads do not keep
// others waiting.
constexpr std::size_t kBytesPerTask = 64 << 10;
// Rows that are rounded in one task: a few microseconds.
constexpr std::int64_t kRowsPerTask = 4;

std::int64_t product(const std::vector<std::int64_t>& shape, std::size_t count) {
  std::int64_t result = 1;
  for (std::size_t i = 0; i < count; ++i) result *= shape[i];
  return result;
}

void check_norm(const Input& scale, const Input& bias, std::int64_t width) {
  if ((scale && scale.shape != std::vector{width}) || (bias && bias.shape != std::vector{width})) {
    throw std::invalid_argument("a norm has another width than what it normalizes");
  }
}

}  // namespace

TiledWeights::TiledWeights(const Attributes& attributes)
    : shape_{nullptr, attributes.integer("N"), attributes.integer("K"), attributes.integer("block_size"),
             attributes.integer("bits")} {
  constexpr std::int64_t most = std::int64_t{1} << 31;  // far from overflow when multiplied with each other
  if (shape_.outputs < 1 || shape_.outputs > most || shape_.inputs < 1 || shape_.inputs > most ||
      shape_.block < 8 || shape_.block % 8 != 0 || shape_.inputs % shape_.block != 0 ||
      (shape_.bits != 4 && shape_.bits != 8)) {
    throw std::invalid_argument("N, K, block_size and bits do not describe tiled weights");
  }
}

TiledMatrix TiledWeights::over(const Input& weights) const {
  TiledMatrix matrix = shape_;
  matrix.data = weights.as<std::byte>();
  if (static_cast<std::size_t>(product(weights.shape, weights.shape.size())) != matrix.nbytes()) {
    throw std::invalid_argument("the weights have another size than their attributes say");
  }
  return matrix;
}

void LinearOperator::compute(Context& context) const {
  const Input x = context.input(0), bias = context.input(2), residual = context.input(3);
  const Input norm_scale = context.input(4), norm_bias = context.input(5);
  const TiledMatrix weights = weights_.over(context.input(1));
  std::vector<std::int64_t> shape = x.shape;
  if (shape.empty() || shape.back() != weights.inputs) {
    throw std::invalid_argument("the input has another width than the weights");
  }
  const std::int64_t num_rows = product(shape, shape.size() - 1);
  shape.back() = weights.outputs;
  if (bias && bias.shape != std::vector{weights.outputs}) {
    throw std::invalid_argument("the bias has another shape than [outputs]");
  }
  if (residual && residual.shape != shape) {
    throw std::invalid_argument("the residual has another shape than the output");
  }
  check_norm(norm_scale, norm_bias, weights.inputs);
  const LinearOutput output{context.output<float>(0, shape), bias.as<float>(), residual.as<float>(), gelu_};
  if (num_rows == 0) return;

  const LinearKernels& kernels = *linear_kernels().front();
  const Norm norm{norm_scale.as<float>(), norm_bias.as<float>()};
  thread_local QuantizedActivations rows;  // kept for the next product: a step allocates nothing
  QuantizedActivations& rounded = rows;    // the worker threads must see this thread's
  rounded.resize(num_rows, weights.inputs, weights.block);
  const std::int64_t round_tasks = (num_rows + kRowsPerTask - 1) / kRowsPerTask;
  context.parallel_for(round_tasks, [&](std::int64_t task) {
    const std::int64_t end = std::min((task + 1) * kRowsPerTask, num_rows);
    for (std::int64_t row = task * kRowsPerTask; row < end; ++row) {
      const float* values = x.as<float>() + row * weights.inputs;
      if (norm_scale) {
        thread_local std::vector<float> normalized;
        normalized.resize(static_cast<std::size_t>(weights.inputs));
        kernels.normalize(values, weights.inputs, norm, normalized.data());
        values = normalized.data();
      }
      kernels.round_row(values, row, rounded);
    }
  });
  const std::int64_t per_task =
      std::max<std::int64_t>(1, static_cast<std::int64_t>(kBytesPerTask / weights.tile_bytes()));
  const std::int64_t tiles = weights.tiles();
  context.parallel_for((tiles + per_task - 1) / per_task, [&](std::int64_t task) {
    kernels.multiply(weights, rounded, task * per_task, std::min((task + 1) * per_task, tiles), output);
  });
}

void ResidualNormOperator::compute(Context& context) const {
  const Input x = context.input(0);
  const Input scale[2] = {context.input(1), context.input(2)}, bias[2] = {context.input(3), context.input(4)};
  if (x.shape.empty() || x.shape.back() % kTileOutputs != 0) {
    throw std::invalid_argument("the input's width is no multiple of 8");
  }
  const std::int64_t width = x.shape.back(), num_rows = product(x.shape, x.shape.size() - 1);
  for (int i = 0; i < 2; ++i) check_norm(scale[i], bias[i], width);
  float* out = context.output<float>(0, x.shape);
  const LinearKernels& kernels = *linear_kernels().front();
  const std::int64_t tasks = (num_rows + kRowsPerTask - 1) / kRowsPerTask;
  if (tasks == 0) return;
  context.parallel_for(tasks, [&](std::int64_t task) {
    const std::int64_t end = std::min((task + 1) * kRowsPerTask, num_rows);
    for (std::int64_t row = task * kRowsPerTask; row < end; ++row) {
      const float* from = x.as<float>() + row * width;
      float* to = out + row * width;
      kernels.normalize(from, width, {scale[0].as<float>(), bias[0].as<float>()}, to);
      kernels.normalize(to, width, {scale[1].as<float>(), bias[1].as<float>()}, to);
      for (std::int64_t k = 0; k < width; ++k) to[k] += from[k];
    }
  });
}

void EmbeddingOperator::compute(Context& context) const {
  const Input ids = context.input(0);
  const TiledMatrix table = table_.over(context.input(1));
  std::vector<std::int64_t> shape = ids.shape;
  const std::int64_t count = product(shape, shape.size());
  shape.push_back(table.inputs);
  float* out = context.output<float>(0, shape);
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int64_t id = ids.as<std::int64_t>()[i];
    if (id < 0 || id >= table.outputs) throw std::invalid_argument("an id lies outside of the table");
    read_row(table, id, out + i * table.inputs);
  }
}

}  // namespace sabiyarn
