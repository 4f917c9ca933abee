// Attention of every instruction set against the definition in float64, on float16, float32 and int8 caches. The loops
// for registers of sixteen floats are also tried on CPUs without AVX-512, with two registers of AVX2 for each of them.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "check.hpp"
#include "core/kernels/attention.hpp"
#include "core/simd/half.hpp"
#include "core/simd/instruction_sets.hpp"

#if defined(__x86_64__)

#define SABIYARN_KERNEL __attribute__((target("avx2,fma,f16c")))

#include "core/kernels/attention_fma_f16c.hpp"

#define SABIYARN_SIXTEEN

namespace sabiyarn {
namespace {

struct Sixteen {
  Floats8 low, high;
};

SABIYARN_KERNEL inline Sixteen broadcast16(float value) noexcept {
  return {broadcast8(value), broadcast8(value)};
}
SABIYARN_KERNEL inline Sixteen multiply_add(const Sixteen& a, const Sixteen& b, const Sixteen& c) noexcept {
  return {multiply_add(a.low, b.low, c.low), multiply_add(a.high, b.high, c.high)};
}
template <typename Value>
[[gnu::always_inline]] SABIYARN_KERNEL inline Sixteen load16(const Value* source) noexcept {
  return {load8(source), load8(source + 8)};
}
SABIYARN_KERNEL inline void store16(const Sixteen& value, float* target) noexcept {
  store8(value.low, target);
  store8(value.high, target + 8);
}

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/attention_kernel.hpp"

namespace sabiyarn {
namespace {
constexpr AttentionKernels kEmulatedAvx512 = {"emulated avx512", append, attend};
}
}  // namespace sabiyarn

#endif

using namespace sabiyarn;

namespace {

constexpr std::int64_t kHeads = 2;

double stored(const std::vector<std::byte>& cache, KvDtype dtype, std::int64_t at) {
  const std::byte* source = cache.data() + static_cast<std::size_t>(at) * value_bytes(dtype);
  switch (dtype) {
    case KvDtype::kFloat16:
      return static_cast<double>(half_to_float(*reinterpret_cast<const half_bits*>(source)));
    case KvDtype::kFloat32:
      return static_cast<double>(*reinterpret_cast<const float*>(source));
    default:
      return static_cast<double>(*reinterpret_cast<const std::int8_t*>(source));
  }
}

// A head's query as it is multiplied: integers times a unit with an int8 cache, as attention.hpp says, in float32.
std::vector<double> multiplied(const float* query, std::int64_t head_dim, KvDtype dtype, float key_scale) {
  std::vector<double> result(query, query + head_dim);
  if (dtype != KvDtype::kInt8) return result;
  const float root = 1.0f / std::sqrt(static_cast<float>(head_dim));
  float most = 0.0f;
  for (std::int64_t d = 0; d < head_dim; ++d) most = std::max(most, std::fabs(query[d] * root * key_scale));
  const float largest = largest_code(head_dim), unit = most / largest;
  for (std::int64_t d = 0; d < head_dim; ++d) {
    const float code = std::nearbyint(query[d] * root * key_scale * (largest / most));
    result[static_cast<std::size_t>(d)] = static_cast<double>(code) * static_cast<double>(unit) *
                                          std::sqrt(static_cast<double>(head_dim)) /
                                          static_cast<double>(key_scale);
  }
  return result;
}

// Returns the result.
std::vector<float> compare(const AttentionKernels& kernels, KvDtype dtype, std::int64_t head_dim,
                           std::int64_t past, std::int64_t tokens) {
  std::mt19937 random(static_cast<unsigned>(head_dim + 1000 * past + tokens));
  std::normal_distribution<float> normal;
  // The arrays end where the last tile of 16 positions does: the sanitizers see what is read behind it.
  const std::int64_t capacity = (past + tokens + kKeyTile - 1) / kKeyTile * kKeyTile,
                     width = kHeads * head_dim;
  const auto cache_values = static_cast<std::size_t>(kHeads * capacity * head_dim);
  std::vector<std::byte> keys(cache_values * value_bytes(dtype), std::byte{0xff}), values(keys);  // all NaN
  std::vector<float> scales(static_cast<std::size_t>(width), dtype == KvDtype::kInt8 ? 0.03f : 1.0f);
  std::vector<float> qkv(static_cast<std::size_t>(tokens * 3 * width)),
      out(static_cast<std::size_t>(tokens * width));

  // The past is appended token by token, each of which is attended to, then the new ones together.
  AttentionSegment segment{0, 1, 0, 0, -1};
  AttentionInput input{{1, kHeads, head_dim, capacity},
                       1,
                       qkv.data(),
                       keys.data(),
                       values.data(),
                       dtype,
                       {&segment, 1},
                       capacity,
                       0,
                       {},
                       scales.data(),
                       scales.data(),
                       out.data()};
  for (std::int64_t i = 0; i <= past; ++i) {
    input.tokens = segment.num_tokens = i < past ? 1 : tokens;
    segment.total = i + input.tokens;
    std::generate(qkv.begin(), qkv.end(), [&] { return normal(random); });
    check_attention(input);
    compute_attention(input, kernels, [](std::int64_t count, const auto& task) {
      for (std::int64_t at = 0; at < count; ++at) task(at);
    });
  }
  double worst = 0.0;
  for (std::int64_t token = 0; token < tokens; ++token) {
    for (std::int64_t head = 0; head < kHeads; ++head) {
      const std::vector<double> query =
          multiplied(qkv.data() + token * 3 * width + head * head_dim, head_dim, dtype, scales[0]);
      const std::int64_t begin = head * capacity * head_dim, length = past + token + 1;
      std::vector<double> weights(static_cast<std::size_t>(length)),
          mixed(static_cast<std::size_t>(head_dim));
      double sum = 0.0;
      for (std::int64_t k = 0; k < length; ++k) {
        double score = 0.0;
        for (std::int64_t d = 0; d < head_dim; ++d) {
          const std::int64_t at = k / kKeyTile * kKeyTile * head_dim + d * kKeyTile + k % kKeyTile;
          score += query[static_cast<std::size_t>(d)] * stored(keys, dtype, begin + at);
        }
        score *= static_cast<double>(scales[0]) / std::sqrt(static_cast<double>(head_dim));
        sum += weights[static_cast<std::size_t>(k)] = std::exp(score);
      }
      for (std::int64_t d = 0; d < head_dim; ++d) {
        double total = 0.0;
        for (std::int64_t k = 0; k < length; ++k) {
          total += weights[static_cast<std::size_t>(k)] * stored(values, dtype, begin + k * head_dim + d);
        }
        const double exact = total / sum * static_cast<double>(scales[0]);
        const float ours = out[static_cast<std::size_t>(token * width + head * head_dim + d)];
        worst = std::max(worst, std::fabs(static_cast<double>(ours) - exact));
      }
    }
  }
  // Values and scores are of size 1 to 5, and float32 keeps them to 6e-8 of that.
  if (!(worst < 4e-6)) {
    std::printf("%s: off by %g: head_dim %d, past %d, %d tokens\n", kernels.name, worst,
                static_cast<int>(head_dim), static_cast<int>(past), static_cast<int>(tokens));
  }
  CHECK(worst < 4e-6);
  return out;
}

// Those that add with one rounding.
std::vector<const AttentionKernels*> fused_kernels() {
  std::vector<const AttentionKernels*> fused(attention_kernels().begin(), attention_kernels().end() - 1);
#if defined(__x86_64__)
  if (has_avx2_f16c_fma()) fused.push_back(&kEmulatedAvx512);
#endif
  return fused;
}

void compare_all(KvDtype dtype, std::int64_t head_dim, std::int64_t past, std::int64_t tokens) {
  compare(*attention_kernels().back(), dtype, head_dim, past, tokens);
  std::vector<float> first;
  for (const AttentionKernels* kernels : fused_kernels()) {
    const std::vector<float> out = compare(*kernels, dtype, head_dim, past, tokens);
    if (first.empty()) first = out;
    CHECK(std::memcmp(out.data(), first.data(), out.size() * sizeof(float)) == 0);
  }
}

}  // namespace

int main() {
  for (const AttentionKernels* kernels : attention_kernels()) std::printf("%s\n", kernels->name);
  for (const KvDtype dtype : {KvDtype::kFloat16, KvDtype::kFloat32, KvDtype::kInt8}) {
    for (const std::int64_t head_dim : {8, 24, 40, 64}) {
      for (const std::int64_t past : {0, 7, 130}) {
        for (const std::int64_t tokens : {1, 3, 4, 64}) compare_all(dtype, head_dim, past, tokens);
      }
    }
  }
  return outcome();
}
