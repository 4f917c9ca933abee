// Every instruction set must give the bits of the formula in core/kernels/linear.hpp, with sums in the order it says.
// VNNI's loops are also tried on CPUs that lack it, with dot products of the test's own.
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "check.hpp"
#include "core/kernels/linear_sets.hpp"
#include "core/simd/fused_multiply_add.hpp"
#include "core/simd/half.hpp"
#include "core/simd/instruction_sets.hpp"

#if defined(__x86_64__)

#include <immintrin.h>

#define SABIYARN_KERNEL __attribute__((target("avx2")))

namespace sabiyarn {
namespace {

constexpr int kRowsAtOnce = 8;  // as AVX-512 has; AVX-VNNI's 6 are the same code

SABIYARN_KERNEL inline void dot_products(__m256i& sums, __m256i unsigned_bytes,
                                         __m256i signed_bytes) noexcept {
  std::int32_t total[8];
  std::uint8_t a[32];
  std::int8_t b[32];
  std::memcpy(total, &sums, sizeof total);
  std::memcpy(a, &unsigned_bytes, sizeof a);
  std::memcpy(b, &signed_bytes, sizeof b);
  for (int i = 0; i < 32; ++i) total[i / 4] += a[i] * b[i];
  std::memcpy(&sums, total, sizeof sums);
}

}  // namespace
}  // namespace sabiyarn

#include "core/kernels/linear_vnni.hpp"

namespace sabiyarn {
namespace {
constexpr LinearKernels kEmulatedVnni = {"emulated VNNI", normalize, round_row, multiply,
                                         multiply_floats_plain};
}
}  // namespace sabiyarn

#endif

using namespace sabiyarn;

namespace {

std::vector<const LinearKernels*> all_kernels() {
  std::vector<const LinearKernels*> all(linear_kernels().begin(), linear_kernels().end());
#if defined(__x86_64__)
  if (has_avx2()) all.push_back(&kEmulatedVnni);
#endif
  return all;
}

// One output of one row, from the stored numbers. Integer sums are exact in any order.
float expected(const TiledMatrix& weights, const QuantizedActivations& rows, std::int64_t output,
               std::int64_t row) {
  const bool bytes = weights.type == WeightType::kInt8;
  const auto lane = static_cast<std::size_t>(output % kTileOutputs);
  const std::byte* block = weights.tile(output / kTileOutputs);
  float row_scale = 1.0f, total = 0.0f;
  if (!bytes) {
    std::memcpy(&row_scale, block + 4 * lane, sizeof row_scale);
    block += 32;
  }
  for (std::int64_t b = 0; b < weights.blocks(); ++b, block += weights.block_bytes()) {
    float scale = 1.0f;
    if (bytes) std::memcpy(&scale, block + 4 * lane, sizeof scale);
    const std::byte* codes = block + (bytes ? 32 : weights.block / 2) + 4 * lane;
    std::int32_t sum = 0;
    for (std::int64_t k = 0; k < weights.block; ++k) {
      const std::int64_t per_group = bytes ? 4 : 8;
      const auto stored = static_cast<std::uint8_t>(codes[k / per_group * 32 + k % 4]);
      const int four = k % 8 < 4 ? stored & 15 : stored >> 4;
      const int small =
          bytes ? 1 : static_cast<std::int8_t>(block[static_cast<std::size_t>(k / 16 * 8) + lane]);
      const int code = bytes ? static_cast<std::int8_t>(stored) : small * kFourBitTable[four];
      sum += code * rows.codes[static_cast<std::size_t>(row * weights.inputs + b * weights.block + k)];
    }
    total += static_cast<float>(sum) * (scale * rows.scales[static_cast<std::size_t>(row * rows.blocks + b)]);
  }
  return bytes ? total : total * row_scale;
}

enum class Codes { kRandom, kLowest, kHighest };

void write_floats(std::byte* target, std::size_t bytes, std::mt19937& random) {
  for (std::size_t i = 0; i < bytes; i += 4) {
    const float value = static_cast<float>(random() % 2000u) * 1e-4f - 0.1f;
    std::memcpy(target + i, &value, sizeof value);
  }
}

std::vector<std::byte> tiles(TiledMatrix shape, Codes codes, std::mt19937& random) {
  std::vector<std::byte> data(shape.nbytes());
  const bool extreme = codes != Codes::kRandom, highest = codes == Codes::kHighest;
  const auto eight_bits = [&] {  // codes of 8 bits, and scales of 4-bit weights: -128 is none
    const auto drawn = static_cast<int>(random() & 255u);
    return static_cast<std::byte>(extreme ? (highest ? 127 : -127) : drawn == 128 ? 0 : drawn);
  };
  const bool bytes = shape.type == WeightType::kInt8;
  for (std::size_t tile = 0; tile < data.size(); tile += shape.tile_bytes()) {
    write_floats(data.data() + tile, shape.tile_header_bytes(), random);
    for (std::size_t at = tile + shape.tile_header_bytes(); at < tile + shape.tile_bytes();
         at += shape.block_bytes()) {
      for (std::size_t i = 0; i < shape.block_bytes(); ++i) {
        const int four = extreme ? (highest ? 255 : 0) : static_cast<int>(random() & 255u);
        data[at + i] = bytes || i < shape.block_header_bytes() ? eight_bits() : static_cast<std::byte>(four);
      }
      if (bytes) write_floats(data.data() + at, shape.block_header_bytes(), random);
    }
  }
  return data;
}

void compare(const TiledMatrix& weights, std::int64_t num_rows, std::mt19937& random, bool extreme) {
  std::vector<float> values(static_cast<std::size_t>(num_rows * weights.inputs));
  for (float& value : values) {
    value =
        extreme ? (random() % 2u != 0u ? -3.0f : 3.0f) : static_cast<float>(random() % 4001u) * 0.001f - 2.0f;
  }
  if (extreme) std::fill(values.begin(), values.begin() + weights.inputs, -3.0f);
  const auto rounded_by = [&](const LinearKernels& kernels) {
    QuantizedBuffer buffer;
    buffer.resize(QuantizedBuffer::room(num_rows), weights.inputs, weights.block);
    for (std::int64_t row = 0; row < num_rows; ++row) {
      kernels.round_row(values.data() + row * weights.inputs, row, buffer.rows(0, num_rows));
    }
    return buffer;
  };
  // Sets may order the codes in their own way, so the formula takes those of the plain set.
  QuantizedBuffer plain_buffer = rounded_by(kLinearPlain);
  const QuantizedActivations plain = plain_buffer.rows(0, num_rows);
  for (const LinearKernels* kernels : all_kernels()) {
    QuantizedBuffer buffer = rounded_by(*kernels);
    const QuantizedActivations rows = buffer.rows(0, num_rows);
    const std::int64_t num_blocks = num_rows * rows.blocks;
    CHECK(std::equal(rows.sums, rows.sums + num_blocks, plain.sums));
    CHECK(std::equal(rows.scales, rows.scales + num_blocks, plain.scales));
    const std::int64_t num_corrections = num_rows * rows.inputs / kSubBlock * 2;
    CHECK(std::equal(rows.corrections, rows.corrections + num_corrections, plain.corrections));
    int wrong = 0;
    // All tiles, and the first alone: the others are a neighbouring thread's.
    for (const std::int64_t end : {weights.tiles(), std::int64_t{1}}) {
      std::vector<float> out(static_cast<std::size_t>(num_rows * weights.outputs), 12345.0f);
      kernels->multiply(weights, rows, 0, end, {out.data()});
      for (std::int64_t row = 0; row < num_rows; ++row) {
        for (std::int64_t n = 0; n < weights.outputs; ++n) {
          const float want = n < end * kTileOutputs ? expected(weights, plain, n, row) : 12345.0f;
          if (out[static_cast<std::size_t>(row * weights.outputs + n)] != want) ++wrong;
        }
      }
    }
    if (wrong != 0) {
      std::printf("%s: %d outputs of %d rows are wrong: %d bits, blocks of %d\n", kernels->name, wrong,
                  static_cast<int>(num_rows), static_cast<int>(bits_of(weights.type)),
                  static_cast<int>(weights.block));
    }
    CHECK(wrong == 0);
  }
}

// Bits of any finite float; most exponents are near 0, so that sums cancel, round and underflow.
float any_float(std::mt19937& random) {
  const auto bits = static_cast<std::uint32_t>(random());
  const std::uint32_t exponent = random() % 4u == 0u ? bits >> 23 & 0xff : 127 - 30 + (bits >> 23) % 60;
  return std::bit_cast<float>((bits & 0x807fffff) | std::min(exponent, 254u) << 23);
}

// The order of the sums is the contract: one chain of std::fma over the inputs, whatever the number of rows.
void compare_floats(TiledMatrix weights, std::int64_t num_rows, std::mt19937& random) {
  std::vector<std::byte> data(weights.nbytes());
  const std::size_t size = static_cast<std::size_t>(bits_of(weights.type)) / 8;
  for (std::size_t at = 0; at < data.size(); at += size) {
    const float value = static_cast<float>(random() % 4001u) * 0.001f - 2.0f;
    const half_bits half = float_to_half(value);
    const auto upper = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value) >> 16);
    std::memcpy(data.data() + at,
                weights.type == WeightType::kFloat32   ? static_cast<const void*>(&value)
                : weights.type == WeightType::kFloat16 ? static_cast<const void*>(&half)
                                                       : static_cast<const void*>(&upper),
                size);
  }
  weights.data = data.data();
  std::vector<float> values(static_cast<std::size_t>(num_rows * weights.inputs));
  for (float& value : values) value = static_cast<float>(random() % 4001u) * 0.001f - 2.0f;
  std::vector<float> want(static_cast<std::size_t>(num_rows * weights.outputs)), row(values.size());
  row.resize(static_cast<std::size_t>(weights.inputs));
  for (std::int64_t n = 0; n < weights.outputs; ++n) {
    read_row(weights, n, row.data());
    for (std::int64_t r = 0; r < num_rows; ++r) {
      float total = 0.0f;
      for (std::int64_t k = 0; k < weights.inputs; ++k) {
        total = std::fma(values[static_cast<std::size_t>(r * weights.inputs + k)],
                         row[static_cast<std::size_t>(k)], total);
      }
      want[static_cast<std::size_t>(r * weights.outputs + n)] = total;
    }
  }
  for (const LinearKernels* kernels : all_kernels()) {
    std::vector<float> out(want.size());
    kernels->multiply_floats(weights, values.data(), num_rows, 0, weights.tiles(), {out.data()});
    CHECK(out == want);
  }
}

void compare_fused_multiply_add(std::mt19937& random) {
  for (int i = 0; i < 1000000; ++i) {
    Floats a, b, c;
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      a[lane] = any_float(random);
      b[lane] = any_float(random);
      // As large as the product, with its opposite sign, every other time: only what was rounded away is left.
      c[lane] = random() % 2u == 0u ? any_float(random) : -a[lane] * b[lane];
    }
    const Floats result = fused_multiply_add(a, b, c);
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      const float want = std::fma(a[lane], b[lane], c[lane]);
      const bool same = std::bit_cast<std::uint32_t>(result[lane]) == std::bit_cast<std::uint32_t>(want);
      CHECK(same || (std::isnan(result[lane]) && std::isnan(want)));
    }
  }
}

// What stands around the products is the same code, so only the first set can differ from the last by its
// compiler.
void compare_normalize(std::mt19937& random) {
  constexpr std::int64_t width = 72;
  float values[width], scale[width], bias[width], first[width], other[width];
  for (std::int64_t k = 0; k < width; ++k) {
    values[k] = static_cast<float>(random() % 1000u) * 0.01f;
    scale[k] = static_cast<float>(random() % 1000u) * 0.002f;
    bias[k] = static_cast<float>(random() % 1000u) * 0.001f;
  }
  for (const LinearKernels* kernels : all_kernels()) {
    for (const float* of : {static_cast<const float*>(bias), static_cast<const float*>(nullptr)}) {
      linear_kernels().back()->normalize(values, width, {scale, of}, first);
      kernels->normalize(values, width, {scale, of}, other);
      CHECK(std::memcmp(first, other, sizeof first) == 0);
    }
  }
}

}  // namespace

int main() {
  std::mt19937 random(1);
  for (const LinearKernels* kernels : all_kernels()) std::printf("%s\n", kernels->name);
  for (const WeightType type : {WeightType::kInt8, WeightType::kInt4}) {
    for (const std::int64_t block : {16, 32, 48, 64, 128, 256}) {
      for (const Codes codes : {Codes::kRandom, Codes::kLowest, Codes::kHighest}) {
        TiledMatrix weights{nullptr, 19, 2 * block, type, block};
        const std::vector<std::byte> data = tiles(weights, codes, random);
        weights.data = data.data();
        for (std::int64_t rows = 1; rows <= 17; ++rows)
          compare(weights, rows, random, codes != Codes::kRandom);
      }
    }
  }
  for (const WeightType type : {WeightType::kFloat32, WeightType::kFloat16, WeightType::kBfloat16}) {
    for (const std::int64_t inputs : {8, 72, 264, 520}) {  // one slice of the inputs, and several
      for (const std::int64_t outputs : {1, 8, 13, 35}) {
        for (const std::int64_t rows : {1, 2, 3, 4, 5, 6, 7, 13}) {
          compare_floats({nullptr, outputs, inputs, type, 0}, rows, random);
        }
      }
    }
  }
  compare_fused_multiply_add(random);
  compare_normalize(random);
  return outcome();
}
