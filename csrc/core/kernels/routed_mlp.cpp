#include "core/kernels/routed_mlp.hpp"

#include <stdexcept>
#include <string>

#include "core/simd/exact_math.hpp"

namespace sabiyarn {

namespace {

std::size_t product(std::int64_t a, std::int64_t b) { return static_cast<std::size_t>(a * b); }

std::string shape_of(const TiledMatrix& matrix) {
  return "[" + std::to_string(matrix.outputs) + ", " + std::to_string(matrix.inputs) + "]";
}

}  // namespace

void ExpertWeights::check_shape() const {
  for (const TiledMatrix* matrix : {&gate, &fc, &proj}) matrix->check_shape();
  if (gate.type != WeightType::kFloat32) throw std::invalid_argument("the gate is not float32");
  if (experts() > kMostExperts) {
    throw std::invalid_argument("experts is " + std::to_string(experts()) + "; it must be 1 to " +
                                std::to_string(kMostExperts));
  }
  if (fc.inputs != width() || proj.outputs != width() || proj.inputs != hidden()) {
    throw std::invalid_argument("an expert's matrices are " + shape_of(fc) + " and " + shape_of(proj) +
                                "; they must be [hidden, " + std::to_string(width()) + "] and [" +
                                std::to_string(width()) + ", hidden]");
  }
  if (chosen < 1 || chosen > experts()) {
    throw std::invalid_argument("experts_per_token is " + std::to_string(chosen) + "; it must be 1 to the " +
                                std::to_string(experts()) + " experts");
  }
}

TiledMatrix expert_of(const TiledMatrix& bank, std::int64_t expert) noexcept {
  TiledMatrix matrix = bank;
  matrix.data += static_cast<std::size_t>(expert) * bank.nbytes();
  return matrix;
}

void choose_experts(const float* scores, std::int64_t experts, std::int64_t chosen, std::int32_t* best,
                    float* weights) noexcept {
  std::int64_t found = 0;
  for (std::int64_t expert = 0; expert < experts; ++expert) {
    // Behind all that are no worse. NaN is never better, so the list is full in any case.
    std::int64_t place = found;
    while (place > 0 && scores[expert] > scores[best[place - 1]]) --place;
    if (place == chosen) continue;
    found = std::min(found + 1, chosen);
    for (std::int64_t at = found - 1; at > place; --at) best[at] = best[at - 1];
    best[place] = static_cast<std::int32_t>(expert);
  }
  float sum = 0.0f;
  for (std::int64_t rank = 0; rank < chosen; ++rank) {
    weights[rank] = exp_float(scores[best[rank]] - scores[best[0]]);
    sum += weights[rank];
  }
  for (std::int64_t rank = 0; rank < chosen; ++rank) weights[rank] /= sum;
}

void RoutingScratch::resize(const ExpertWeights& mlp, const RoutedRows& input) {
  const std::int64_t num_slots = input.rows * mlp.chosen;
  if (input.norm.scale != nullptr) resize_anew(normalized, product(input.rows, mlp.width()));
  scores.resize(product(input.rows, mlp.experts()));
  best.resize(static_cast<std::size_t>(num_slots));
  weights.resize(best.size());
  slots.resize(best.size());
  rows.resize(best.size());
  experts.resize(best.size());
  if (is_float(mlp.fc.type)) resize_anew(inputs, product(num_slots, mlp.width()));
  resize_anew(hidden, product(num_slots, mlp.hidden()));
  resize_anew(outputs, product(num_slots, mlp.width()));
  const auto num_experts = static_cast<std::size_t>(mlp.experts());
  begin.resize(num_experts + 1);
  rounded_inputs.resize(num_experts);
  rounded_hidden.resize(num_experts);
}

void RoutingScratch::group(const ExpertWeights& mlp) {
  const auto num_experts = static_cast<std::size_t>(mlp.experts());
  std::int64_t room = 0;
  std::fill(begin.begin(), begin.end(), 0);
  for (const std::int32_t expert : best) ++begin[static_cast<std::size_t>(expert) + 1];
  for (std::size_t expert = 0; expert < num_experts; ++expert) {
    room += QuantizedBuffer::room(begin[expert + 1]);
    begin[expert + 1] += begin[expert];
  }
  share(input_buffer, mlp.fc, room, rounded_inputs);
  share(hidden_buffer, mlp.proj, room, rounded_hidden);
  for (std::size_t at = 0; at < best.size(); ++at) {
    const auto expert = static_cast<std::size_t>(best[at]);
    const std::int64_t slot = begin[expert]++;
    slots[at] = slot;
    rows[static_cast<std::size_t>(slot)] = static_cast<std::int64_t>(at) / mlp.chosen;
    experts[static_cast<std::size_t>(slot)] = best[at];
  }
  // Each now begins where the next one did.
  for (std::size_t expert = num_experts; expert > 0; --expert) {
    begin[expert] = begin[expert - 1];
  }
  begin[0] = 0;
}

void RoutingScratch::share(QuantizedBuffer& buffer, const TiledMatrix& bank, std::int64_t room,
                           std::vector<QuantizedActivations>& rounded) const {
  if (is_float(bank.type)) return;
  buffer.resize(room, bank.inputs, bank.block);
  std::int64_t first = 0;
  for (std::size_t expert = 0; expert < rounded.size(); ++expert) {
    const std::int64_t count = begin[expert + 1] - begin[expert];
    rounded[expert] = buffer.rows(first, count);
    first += QuantizedBuffer::room(count);
  }
}

void RoutingScratch::cut(const TiledMatrix& bank) {
  tasks.clear();
  for (std::size_t expert = 0; expert + 1 < begin.size(); ++expert) {
    const std::int64_t count = begin[expert + 1] - begin[expert];
    if (count == 0) continue;
    const std::int64_t tiles = bank.tiles(), per_task = tiles_per_task(bank, count);
    for (std::int64_t first = 0; first < tiles; first += per_task) {
      tasks.push_back({static_cast<std::int64_t>(expert), first, std::min(first + per_task, tiles)});
    }
  }
}

}  // namespace sabiyarn
