// csrc/core/kernels/routed_mlp.hpp - a mixture of experts: each token is computed by the few that a router chooses.
//
//   a        = norm(x[row]), or x[row] without a norm
//   score[e] = a . gate[e], a float32 product
//   chosen   = the k experts with the largest scores, the best first; of equal ones the lower index
//   out[row] = residual[row] + (w[0] * y[0] + w[1] * y[1] + ...)
//              w = softmax over the chosen scores, y[r] = gelu(a fc[chosen[r]]^T) proj[chosen[r]]^T
//
// Tokens are grouped by expert: a run reads the tiles of each expert that somebody chose once, and of no other. All
// products are those of linear.hpp, and what a row adds up is in the order of its own choice, so that its bits do not
// depend on the other rows.
#pragma once

#include <cstdint>
#include <vector>

#include "core/kernels/linear.hpp"
#include "core/kernels/linear_tasks.hpp"

namespace sabiyarn {

// The weights of one layer. The experts of a bank follow each other in memory.
struct ExpertWeights {
  TiledMatrix gate;  // float32 [experts, width]
  TiledMatrix fc;    // [hidden, width] of expert 0
  TiledMatrix proj;  // [width, hidden] of expert 0
  std::int64_t chosen;

  std::int64_t experts() const noexcept { return gate.outputs; }
  std::int64_t width() const noexcept { return gate.inputs; }
  std::int64_t hidden() const noexcept { return fc.outputs; }
  // Throws std::invalid_argument if the shapes do not fit each other, or chosen is not 1 to experts.
  void check_shape() const;
};

inline constexpr std::int64_t kMostExperts = 1024;

TiledMatrix expert_of(const TiledMatrix& bank, std::int64_t expert) noexcept;

struct RoutedRows {
  const float* x;  // [rows, width]
  std::int64_t rows;
  Norm norm;              // without a scale: none
  const float* residual;  // [rows, width], or none
  float* out;             // [rows, width]
};

// The experts of a row, the best first, and their weights; [chosen] each.
void choose_experts(const float* scores, std::int64_t experts, std::int64_t chosen, std::int32_t* best,
                    float* weights) noexcept;

// Memory of a run, kept for the next one. A slot is one row with one of its experts; slots are in the order of
// the experts.
struct RoutingScratch {
  struct Task {
    std::int64_t expert, first, end;  // tiles
  };
  std::vector<float> normalized;               // [rows, width]
  std::vector<float> scores;                   // [rows, experts]
  std::vector<std::int32_t> best;              // [rows, chosen]: experts
  std::vector<float> weights;                  // [rows, chosen]
  std::vector<std::int64_t> slots;             // [rows, chosen]: where each choice stands
  std::vector<std::int64_t> rows;              // [slots]: whose choice it is
  std::vector<std::int32_t> experts;           // [slots]
  std::vector<std::int64_t> begin;             // [experts + 1]: the first slot of each expert
  std::vector<float> inputs, hidden, outputs;  // [slots, width], [slots, hidden], [slots, width]
  // Of integer weights, the slots of all experts rounded, and each expert's.
  QuantizedBuffer input_buffer, hidden_buffer;
  std::vector<QuantizedActivations> rounded_inputs, rounded_hidden;
  std::vector<Task> tasks;

  // Makes room for the rows; what only some types of weights need is left out for others.
  void resize(const ExpertWeights& mlp, const RoutedRows& input);
  // Groups the choices in `best` by expert, and makes room for their rounded activations.
  void group(const ExpertWeights& mlp);
  // Cuts the products of a bank with all slots.
  void cut(const TiledMatrix& bank);

 private:
  // Gives each expert its part of a buffer of `room` rows, for the rounded inputs of a bank of integer weights.
  void share(QuantizedBuffer& buffer, const TiledMatrix& bank, std::int64_t room,
             std::vector<QuantizedActivations>& rounded) const;
};

// parallel_for(count, task) calls task(i) for each i < count, in any order and on any threads.
template <typename ParallelFor>
void compute_routed_mlp(const ExpertWeights& mlp, const RoutedRows& input, const LinearKernels& kernels,
                        const ParallelFor& parallel_for) {
  thread_local RoutingScratch kept;  // a decode step allocates nothing
  RoutingScratch& scratch = kept;    // other threads must see this thread's
  const std::int64_t width = mlp.width(), hidden = mlp.hidden(), chosen = mlp.chosen;
  scratch.resize(mlp, input);
  const float* normalized = input.norm.scale == nullptr ? input.x : scratch.normalized.data();
  for_each_row(parallel_for, input.rows, [&](std::int64_t row) {
    if (input.norm.scale != nullptr) {
      kernels.normalize(input.x + row * width, width, input.norm, scratch.normalized.data() + row * width);
    }
    float* scores = scratch.scores.data() + row * mlp.experts();
    kernels.multiply_floats(mlp.gate, normalized + row * width, 1, 0, mlp.gate.tiles(), {scores});
    choose_experts(scores, mlp.experts(), chosen, scratch.best.data() + row * chosen,
                   scratch.weights.data() + row * chosen);
  });
  scratch.group(mlp);
  const std::int64_t num_slots = input.rows * chosen;

  // One product of every slot: values [slots, inputs] of floats, or `rounded` ones, by the slot's expert.
  const auto multiply = [&](const TiledMatrix& bank, const float* values,
                            const std::vector<QuantizedActivations>& rounded, float* out, bool gelu) {
    scratch.cut(bank);
    parallel_for(static_cast<std::int64_t>(scratch.tasks.size()), [&](std::int64_t index) {
      const RoutingScratch::Task& task = scratch.tasks[static_cast<std::size_t>(index)];
      const auto expert = static_cast<std::size_t>(task.expert);
      const std::int64_t first_slot = scratch.begin[expert];
      const LinearOutput output{out + first_slot * bank.outputs, nullptr, nullptr, gelu};
      const TiledMatrix weights = expert_of(bank, task.expert);
      if (is_float(bank.type)) {
        kernels.multiply_floats(weights, values + first_slot * bank.inputs,
                                scratch.begin[expert + 1] - first_slot, task.first, task.end, output);
      } else {
        kernels.multiply(weights, rounded[expert], task.first, task.end, output);
      }
    });
  };
  const auto round = [&](std::int64_t slot, const float* values,
                         const std::vector<QuantizedActivations>& rounded) {
    const auto expert = static_cast<std::size_t>(scratch.experts[static_cast<std::size_t>(slot)]);
    kernels.round_row(values, slot - scratch.begin[expert], rounded[expert]);
  };

  for_each_row(parallel_for, num_slots, [&](std::int64_t slot) {
    const float* values = normalized + scratch.rows[static_cast<std::size_t>(slot)] * width;
    if (is_float(mlp.fc.type)) {
      std::copy_n(values, width, scratch.inputs.data() + slot * width);
    } else {
      round(slot, values, scratch.rounded_inputs);
    }
  });
  multiply(mlp.fc, scratch.inputs.data(), scratch.rounded_inputs, scratch.hidden.data(), true);
  if (!is_float(mlp.proj.type)) {
    for_each_row(parallel_for, num_slots, [&](std::int64_t slot) {
      round(slot, scratch.hidden.data() + slot * hidden, scratch.rounded_hidden);
    });
  }
  multiply(mlp.proj, scratch.hidden.data(), scratch.rounded_hidden, scratch.outputs.data(), false);
  for_each_row(parallel_for, input.rows, [&](std::int64_t row) {
    float* out = input.out + row * width;
    for (std::int64_t rank = 0; rank < chosen; ++rank) {
      const auto at = static_cast<std::size_t>(row * chosen + rank);
      const float weight = scratch.weights[at];
      const float* y = scratch.outputs.data() + scratch.slots[at] * width;
      if (rank == 0) {
        for (std::int64_t k = 0; k < width; ++k) out[k] = weight * y[k];
      } else {
        for (std::int64_t k = 0; k < width; ++k) out[k] += weight * y[k];
      }
    }
    if (input.residual != nullptr) {
      const float* residual = input.residual + row * width;
      for (std::int64_t k = 0; k < width; ++k) out[k] += residual[k];
    }
  });
}

}  // namespace sabiyarn
