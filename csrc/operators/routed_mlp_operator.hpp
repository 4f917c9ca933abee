// csrc/operators/routed_mlp_operator.hpp - a mixture of experts on tiled weights, for onnxruntime.
#pragma once

#include "core/kernels/routed_mlp.hpp"
#include "operators/operator.hpp"

namespace sabiyarn {

// Attributes K (width), H (hidden width of an expert), experts, experts_per_token; and how the banks lie, as for
// Linear: fc_weight_type, proj_weight_type and, of integers, fc_block_size, proj_block_size.
//
// x           float32 [..., K]
// gate        uint8, tiled float32 [experts, K] (core/kernels/tiled_matrix.hpp)
// fc_bank     uint8, tiled [H, K] of each expert, one after another
// proj_bank   uint8, tiled [K, H] of each expert, one after another
// residual    float32 [..., K], may be left out like all that follow
// norm_scale, norm_bias  float32 [K]: of a layer norm of x before all else
// -> float32 [..., K]
class RoutedMlpOperator {
 public:
  static constexpr const char* kName = "RoutedMlp";
  static constexpr ort::ElementType kInputs[] = {ort::kFloat, ort::kUint8, ort::kUint8, ort::kUint8,
                                                 ort::kFloat, ort::kFloat, ort::kFloat};
  static constexpr ort::ElementType kOutputs[] = {ort::kFloat};
  static constexpr std::size_t kRequiredInputs = 4;

  explicit RoutedMlpOperator(const Attributes& attributes);
  void compute(Context& context) const;

 private:
  ExpertWeights shape_;
};

}  // namespace sabiyarn
