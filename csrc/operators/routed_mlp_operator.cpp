#include "operators/routed_mlp_operator.hpp"

#include <string>

#include "operators/input_shapes.hpp"

namespace sabiyarn {

namespace {

TiledMatrix bank_of(const Attributes& attributes, const std::string& name, std::int64_t outputs,
                    std::int64_t inputs) {
  TiledMatrix matrix{nullptr, outputs, inputs,
                     WeightType{attributes.integer((name + "_weight_type").c_str())}, 0};
  if (has_blocks(matrix.type)) matrix.block = attributes.integer((name + "_block_size").c_str());
  return matrix;
}

// Throws std::invalid_argument if `bank` does not hold so many of `matrix`.
const std::byte* data_of(const Input& bank, const char* name, const TiledMatrix& matrix,
                         std::int64_t experts) {
  const std::int64_t size = product(bank.shape, bank.shape.size());
  // Divided, since experts times the bytes of the largest matrix would overflow.
  if (size % experts != 0 || static_cast<std::size_t>(size / experts) != matrix.nbytes()) {
    throw std::invalid_argument(std::string(name) + " has " + std::to_string(size) + " bytes; " +
                                std::to_string(experts) + " experts of [" + std::to_string(matrix.outputs) +
                                ", " + std::to_string(matrix.inputs) + "] take " +
                                std::to_string(matrix.nbytes()) + " each");
  }
  return bank.as<std::byte>();
}

}  // namespace

RoutedMlpOperator::RoutedMlpOperator(const Attributes& attributes) {
  const std::int64_t width = attributes.integer("K"), hidden = attributes.integer("H");
  shape_.gate = {nullptr, attributes.integer("experts"), width, WeightType::kFloat32, 0};
  shape_.fc = bank_of(attributes, "fc", hidden, width);
  shape_.proj = bank_of(attributes, "proj", width, hidden);
  shape_.chosen = attributes.integer("experts_per_token");
  shape_.check_shape();
}

void RoutedMlpOperator::compute(Context& context) const {
  const Input x = context.input(0), residual = context.input(4);
  const Input norm_scale = context.input(5), norm_bias = context.input(6);
  const std::int64_t width = shape_.width();
  if (x.shape.empty() || x.shape.back() != width) {
    throw std::invalid_argument("x has shape " + text_of(x.shape) +
                                "; its last dimension must be the width " + std::to_string(width));
  }
  ExpertWeights mlp = shape_;
  mlp.gate.data = data_of(context.input(1), "gate", mlp.gate, 1);
  mlp.fc.data = data_of(context.input(2), "fc_bank", mlp.fc, mlp.experts());
  mlp.proj.data = data_of(context.input(3), "proj_bank", mlp.proj, mlp.experts());
  check_shape(residual, "residual", x.shape);
  check_shape(norm_scale, "norm_scale", {width});
  check_shape(norm_bias, "norm_bias", {width});
  if (norm_bias && !norm_scale) throw std::invalid_argument("norm_bias is given without norm_scale");
  RoutedRows rows{x.as<float>(),
                  product(x.shape, x.shape.size() - 1),
                  {norm_scale.as<float>(), norm_bias.as<float>()},
                  residual.as<float>(),
                  context.output<float>(0, x.shape)};
  if (rows.rows == 0) return;
  compute_routed_mlp(mlp, rows, *linear_kernels().front(),
                     [&](std::int64_t count, const auto& task) { context.parallel_for(count, task); });
}

}  // namespace sabiyarn
