// csrc/operators/linear_operator.hpp - Linear and Embedding on tiled weights, for onnxruntime.
#pragma once

#include "core/kernels/tiled_matrix.hpp"
#include "operators/operator.hpp"

namespace sabiyarn {

// Attributes N (outputs), K (inputs), weight_type (ONNX's number: 1 float32, 10 float16, 16 bfloat16, 3 int8, 22 int4)
// and, of integers, block_size: how the weights lie.
class TiledWeights {
 public:
  explicit TiledWeights(const Attributes& attributes);
  TiledMatrix over(const Input& weights) const;

 private:
  TiledMatrix shape_;
};

// x           float32 [..., K]
// weights     uint8, tiled (core/kernels/tiled_matrix.hpp)
// bias        float32 [N], may be left out like all that follow
// residual    float32 [..., N], added at the end
// norm_scale, norm_bias  float32 [K]: of a layer norm of x before the product
// attribute gelu: 1 for GELU before the residual is added
// -> float32 [..., N]
class LinearOperator {
 public:
  static constexpr const char* kName = "Linear";
  static constexpr ort::ElementType kInputs[] = {ort::kFloat, ort::kUint8, ort::kFloat,
                                                 ort::kFloat, ort::kFloat, ort::kFloat};
  static constexpr ort::ElementType kOutputs[] = {ort::kFloat};
  static constexpr std::size_t kRequiredInputs = 2;

  explicit LinearOperator(const Attributes& attributes)
      : weights_(attributes), gelu_(attributes.integer("gelu") != 0) {}
  void compute(Context& context) const;

 private:
  TiledWeights weights_;
  bool gelu_;
};

// x float32 [..., width], and scale and bias (float32 [width]) of two norms, of which the bias may be left
// out
// -> x + second(first(x)), float32 [..., width]
class ResidualNormOperator {
 public:
  static constexpr const char* kName = "ResidualNorm";
  static constexpr ort::ElementType kInputs[] = {ort::kFloat, ort::kFloat, ort::kFloat, ort::kFloat,
                                                 ort::kFloat};
  static constexpr ort::ElementType kOutputs[] = {ort::kFloat};
  static constexpr std::size_t kRequiredInputs = 3;

  explicit ResidualNormOperator(const Attributes&) {}
  void compute(Context& context) const;
};

// ids int64 [...], table uint8 [tiled] -> float32 [..., K]
class EmbeddingOperator {
 public:
  static constexpr const char* kName = "Embedding";
  static constexpr ort::ElementType kInputs[] = {ort::kInt64, ort::kUint8};
  static constexpr ort::ElementType kOutputs[] = {ort::kFloat};
  static constexpr std::size_t kRequiredInputs = 2;

  explicit EmbeddingOperator(const Attributes& attributes) : table_(attributes) {}
  void compute(Context& context) const;

 private:
  TiledWeights table_;
};

}  // namespace sabiyarn
