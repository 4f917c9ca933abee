// Operators in random graphs: on several threads, several graphs at once, they give the bits of one thread alone; and
// inputs of any shape end in a result or in words. With sanitizers this sees races, and reads behind an input's end.
#include <algorithm>
#include <cstdio>
#include <random>
#include <thread>

#include "check.hpp"
#include "core/kernels/attention.hpp"
#include "operators/attention_operator.hpp"
#include "operators/linear_operator.hpp"
#include "operators/routed_mlp_operator.hpp"
#include "stand_in.hpp"

using namespace sabiyarn;
using stand_in::NodeAttributes;
using stand_in::Outcome;
using stand_in::Tensor;

namespace {

constexpr std::int64_t kWidth = 64, kHidden = 32, kBlock = 32, kExperts = 3, kVocab = 24;
constexpr std::int64_t kHeads = 2, kHeadDim = 32, kRows = 3, kCapacity = 64;
constexpr WeightType kTypes[] = {WeightType::kFloat32, WeightType::kFloat16, WeightType::kBfloat16,
                                 WeightType::kInt8, WeightType::kInt4};

struct Random {
  std::mt19937 engine;

  std::int64_t below(std::int64_t count) {
    return static_cast<std::int64_t>(engine() % static_cast<std::uint64_t>(count));
  }
  bool flag() { return below(2) != 0; }
  template <typename Items>
  auto one_of(const Items& items) {
    return items[static_cast<std::size_t>(below(static_cast<std::int64_t>(std::size(items))))];
  }

  Tensor floats(std::vector<std::int64_t> shape) {
    Tensor tensor{ort::kFloat, std::move(shape), {}};
    std::size_t count = 1;
    for (const std::int64_t size : tensor.shape) count *= static_cast<std::size_t>(size);
    tensor.data.resize(count * sizeof(float));
    std::normal_distribution<float> normal;
    for (std::size_t i = 0; i < count; ++i) {
      const float value = normal(engine);
      std::memcpy(tensor.data.data() + i * sizeof(float), &value, sizeof value);
    }
    return tensor;
  }
  // Bytes that are moderate numbers whatever they stand for: float32, float16, bfloat16, codes or scales.
  Tensor weights(std::int64_t outputs, std::int64_t inputs, WeightType type, std::int64_t matrices = 1) {
    constexpr std::byte kBytes[] = {std::byte{0x3b}, std::byte{0x3c}, std::byte{0xbb}, std::byte{0xbc}};
    const TiledMatrix matrix{nullptr, outputs, inputs, type, has_blocks(type) ? kBlock : 0};
    Tensor tensor{ort::kUint8, {static_cast<std::int64_t>(matrix.nbytes()) * matrices}, {}};
    tensor.data.resize(matrix.nbytes() * static_cast<std::size_t>(matrices));
    for (std::byte& byte : tensor.data) byte = one_of(kBytes);
    return tensor;
  }
};

Tensor integers(std::vector<std::int64_t> shape, const std::vector<std::int64_t>& values) {
  Tensor tensor{ort::kInt64, std::move(shape), {}};
  tensor.data.resize(values.size() * sizeof(std::int64_t));
  if (!values.empty()) std::memcpy(tensor.data.data(), values.data(), tensor.data.size());
  return tensor;
}

// One node: constants and attributes; input 0 is what the node before it gives.
struct Node {
  Outcome (*run)(const NodeAttributes&, const std::vector<const Tensor*>&, unsigned);
  NodeAttributes attributes;
  std::vector<std::optional<Tensor>> inputs;

  Outcome operator()(const Tensor* first, unsigned threads) const {
    // Attention writes into its cache: every run has a cache of its own.
    std::vector<Tensor> copies;
    copies.reserve(inputs.size());
    std::vector<const Tensor*> given;
    for (const std::optional<Tensor>& input : inputs) {
      given.push_back(input ? &copies.emplace_back(*input) : nullptr);
    }
    if (first != nullptr) given[0] = first;
    return run(attributes, given, threads);
  }
};

NodeAttributes matrix(std::int64_t outputs, std::int64_t inputs, WeightType type) {
  return {{"N", outputs},
          {"K", inputs},
          {"weight_type", static_cast<std::int64_t>(type)},
          {"block_size", kBlock}};
}

std::optional<Tensor> maybe(Random& random, Tensor tensor) {
  return random.flag() ? std::optional(std::move(tensor)) : std::nullopt;
}

Node embedding(Random& random, std::int64_t tokens) {
  const WeightType type = random.one_of(kTypes);
  std::vector<std::int64_t> ids;
  for (std::int64_t i = 0; i < tokens; ++i) ids.push_back(random.below(kVocab));
  return {stand_in::run<EmbeddingOperator>,
          matrix(kVocab, kWidth, type),
          {integers({tokens}, ids), random.weights(kVocab, kWidth, type)}};
}

Node linear(Random& random, std::int64_t tokens, std::int64_t outputs) {
  const WeightType type = random.one_of(kTypes);
  NodeAttributes attributes = matrix(outputs, kWidth, type);
  attributes["gelu"] = random.below(2);
  const bool normalized = random.flag();
  return {stand_in::run<LinearOperator>,
          std::move(attributes),
          {random.floats({tokens, kWidth}), random.weights(outputs, kWidth, type),
           maybe(random, random.floats({outputs})), maybe(random, random.floats({tokens, outputs})),
           normalized ? std::optional(random.floats({kWidth})) : std::nullopt,
           normalized ? maybe(random, random.floats({kWidth})) : std::nullopt}};
}

Node residual_norm(Random& random, std::int64_t tokens) {
  return {stand_in::run<ResidualNormOperator>,
          {},
          {random.floats({tokens, kWidth}), random.floats({kWidth}), random.floats({kWidth}),
           maybe(random, random.floats({kWidth})), maybe(random, random.floats({kWidth}))}};
}

Node routed_mlp(Random& random, std::int64_t tokens) {
  const WeightType fc = random.one_of(kTypes), proj = random.one_of(kTypes);
  return {stand_in::run<RoutedMlpOperator>,
          {{"K", kWidth},
           {"H", kHidden},
           {"experts", kExperts},
           {"experts_per_token", 1 + random.below(kExperts)},
           {"fc_weight_type", static_cast<std::int64_t>(fc)},
           {"proj_weight_type", static_cast<std::int64_t>(proj)},
           {"fc_block_size", kBlock},
           {"proj_block_size", kBlock}},
          {random.floats({tokens, kWidth}), random.weights(kExperts, kWidth, WeightType::kFloat32),
           random.weights(kHidden, kWidth, fc, kExperts), random.weights(kWidth, kHidden, proj, kExperts),
           random.floats({tokens, kWidth}), random.floats({kWidth}), maybe(random, random.floats({kWidth}))}};
}

Node attention(Random& random, std::int64_t tokens) {
  constexpr int kCaches[] = {ort::kFloat, ort::kFloat16, ort::kInt8};
  const int type = random.one_of(kCaches);
  const std::size_t value_size = type == ort::kFloat ? 4 : type == ort::kFloat16 ? 2 : 1;
  const auto cache = [&](std::vector<std::int64_t> shape) {
    const auto values = static_cast<std::size_t>(kRows * kHeads * kCapacity * kHeadDim);
    return Tensor{type, std::move(shape), std::vector<std::byte>(values * value_size)};
  };
  std::vector<std::int64_t> segments;
  std::int64_t left = tokens, count = 0, masked = 0;
  for (std::int64_t row = 0; row < kRows && left > 0; ++row, ++count) {
    const std::int64_t own = row + 1 == kRows ? left : 1 + random.below(left);
    const std::int64_t total = own + random.below(std::max<std::int64_t>(kCapacity - own, 1));
    const bool has_mask = random.flag();
    segments.insert(segments.end(), {row, own, total, 0, has_mask ? masked : -1});
    if (has_mask) masked += own * total;
    left -= own;
  }
  const bool scaled = type == ort::kInt8;
  const auto scale = [&] { return scaled ? std::optional(random.floats({kHeads, kHeadDim})) : std::nullopt; };
  return {
      stand_in::run<AttentionOperator>,
      {},
      {random.floats({tokens, 3 * kWidth}), cache({kRows, kHeads, kCapacity / kKeyTile, kHeadDim, kKeyTile}),
       cache({kRows, kHeads, kCapacity, kHeadDim}), integers({count, 5}, segments),
       integers({2}, {kCapacity, random.below(3)}), random.floats({masked}), scale(), scale()}};
}

// An embedding, then layers of any operators.
std::vector<Node> random_graph(Random& random) {
  const std::int64_t tokens = 1 + random.below(40);
  std::vector<Node> nodes{embedding(random, tokens)};
  for (std::int64_t layer = random.below(4); layer >= 0; --layer) {
    nodes.push_back(linear(random, tokens, 3 * kWidth));
    nodes.push_back(attention(random, tokens));
    nodes.push_back(residual_norm(random, tokens));
    nodes.push_back(random.flag() ? routed_mlp(random, tokens) : linear(random, tokens, kWidth));
  }
  return nodes;
}

// The output of a graph, in bytes; "" and a failed check if a node refuses its inputs.
std::vector<std::byte> output_of(const std::vector<Node>& graph, unsigned threads) {
  Tensor values;
  for (std::size_t i = 0; i < graph.size(); ++i) {
    Outcome outcome = graph[i](i == 0 ? nullptr : &values, threads);
    if (!outcome.output) {
      std::printf("node %zu: %s\n", i, outcome.refusal.c_str());
      CHECK(outcome.output);
      return {};
    }
    values = std::move(*outcome.output);
  }
  return values.data;
}

void compare_threads(std::uint32_t seed) {
  Random random{std::mt19937(seed)};
  const std::vector<Node> graph = random_graph(random), other = random_graph(random);
  const std::vector<std::byte> expected = output_of(graph, 1), expected_other = output_of(other, 1);
  // Two graphs at once, each on threads of its own, as two sessions are.
  std::vector<std::byte> found, found_other;
  std::thread beside([&] { found_other = output_of(other, 2); });
  found = output_of(graph, 3);
  beside.join();
  CHECK(found == expected);
  CHECK(found_other == expected_other);
}

std::int64_t size_of(const std::vector<std::int64_t>& shape) {
  std::int64_t size = 1;
  for (const std::int64_t length : shape) size = std::min<std::int64_t>(size * length, 1 << 20);
  return size;
}

void damage(Random& random, Node& node) {
  constexpr std::int64_t kSizes[] = {0, 1, 2, 3, 7, 8, 9, 16, 24, 31, 32, 33, 63, 64, 65, 128, 192};
  constexpr std::int64_t kNumbers[] = {
      0,         1,        -1, 2, 8, 16, 63, 65, 1 << 20, std::int64_t{1} << 31, std::int64_t{1} << 62,
      INT64_MAX, INT64_MIN};
  if (!node.attributes.empty() && random.below(4) == 0) {
    auto attribute = node.attributes.begin();
    std::advance(attribute, random.below(static_cast<std::int64_t>(node.attributes.size())));
    attribute->second = random.one_of(kNumbers);
    return;
  }
  auto& input =
      node.inputs[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(node.inputs.size())))];
  if (!input) input = random.floats({random.one_of(kSizes)});
  Tensor& tensor = *input;
  const std::size_t value_size = tensor.type == ort::kInt64     ? 8
                                 : tensor.type == ort::kFloat   ? 4
                                 : tensor.type == ort::kFloat16 ? 2
                                                                : 1;
  switch (random.below(4)) {
    case 0:
      if (!tensor.shape.empty())
        tensor.shape[static_cast<std::size_t>(random.below(static_cast<std::int64_t>(tensor.shape.size())))] =
            random.one_of(kSizes);
      break;
    case 1:
      tensor.shape.push_back(random.one_of(kSizes));
      break;
    case 2:
      if (!tensor.shape.empty()) tensor.shape.pop_back();
      break;
    default:
      if (tensor.type == ort::kInt64 && !tensor.data.empty()) {
        const std::int64_t number = random.one_of(kNumbers);
        const auto place = random.below(static_cast<std::int64_t>(tensor.data.size() / 8));
        std::memcpy(tensor.data.data() + place * 8, &number, sizeof number);
      } else {
        tensor.shape = {random.one_of(kSizes), random.one_of(kSizes)};
      }
  }
  const std::int64_t size = size_of(tensor.shape);
  if (size > 1 << 16) tensor.shape = {0};
  tensor.data.resize(static_cast<std::size_t>(size_of(tensor.shape)) * value_size);
  tensor.data.shrink_to_fit();
}

// Returns whether it was refused.
bool try_damaged(Random& random) {
  const std::int64_t tokens = 1 + random.below(20);
  const auto make = [&]() -> Node {
    switch (random.below(5)) {
      case 0:
        return embedding(random, tokens);
      case 1:
        return linear(random, tokens, kVocab);
      case 2:
        return residual_norm(random, tokens);
      case 3:
        return routed_mlp(random, tokens);
      default:
        return attention(random, tokens);
    }
  };
  Node node = make();
  for (std::int64_t i = random.below(2); i >= 0; --i) damage(random, node);
  const Outcome outcome = node(nullptr, 2);
  CHECK(outcome.output.has_value() != !outcome.refusal.empty());
  return !outcome.output;
}

}  // namespace

// test_operators [GRAPHS DAMAGED SEED]: more of them than ctest asks for.
int main(int count, char** arguments) {
  const auto number = [&](int place, unsigned usual) {
    return count > place ? static_cast<unsigned>(std::stoul(arguments[place])) : usual;
  };
  const unsigned graphs = number(1, 40), damaged = number(2, 4000), seed = number(3, 1);
  for (unsigned i = 0; i < graphs; ++i) compare_threads(seed * graphs + i);
  Random random{std::mt19937(seed)};
  unsigned refused = 0;
  for (unsigned i = 0; i < damaged; ++i) refused += try_damaged(random) ? 1u : 0u;
  std::printf("%u graphs; %u of %u damaged nodes refused\n", graphs, refused, damaged);
  CHECK(refused > damaged / 4 && refused < damaged);
  return outcome();
}
