// tests/campaigns/fuzz/native/bytes.hpp - turns a fuzzer's bytes into choices. When they are used up, all choices are 0.
#pragma once

#include <cfloat>
#include <cstddef>
#include <cstdint>
#include <limits>

class Bytes {
 public:
  Bytes(const std::uint8_t* data, std::size_t size) : data_(data), size_(size) {}

  std::uint8_t byte() {
    if (at_ >= size_) return 0;
    return data_[at_++];
  }
  bool flag() { return (byte() & 1) != 0; }
  // 0 ... count - 1, count at most 256.
  std::size_t below(std::size_t count) { return byte() % count; }
  std::int32_t id(std::size_t vocab_size) { return static_cast<std::int32_t>(below(vocab_size)); }

  // A score: what models give, with many ties, and what none should give.
  float score() {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    constexpr float kOdd[] = {-kInfinity, kInfinity, std::numeric_limits<float>::quiet_NaN(),
                              0.0f,       -0.0f,     FLT_MAX,
                              -FLT_MAX,   FLT_MIN,   1e-40f,
                              1.4e-45f,   -1.4e-45f, 1e-38f,
                              -1e-38f,    88.0f,     -104.0f,
                              3e38f};
    const std::uint8_t choice = byte();
    constexpr std::size_t kNumOdd = sizeof kOdd / sizeof kOdd[0];
    if (choice < kNumOdd) return kOdd[choice];
    return static_cast<float>(choice - 128) / 8.0f;
  }

  // An option that should be a fraction, a temperature or a penalty.
  double option() {
    constexpr double kOptions[] = {1.0,   0.5,  0.9,   0.999999999, 0.1, 2.0,  1.3, 0.7,  1e-10,
                                   1e-30, 1e30, 1e300, 1e-300,      0.0, -1.0, 50., 1e-5, 3.0};
    const std::size_t choice = below(sizeof kOptions / sizeof kOptions[0] + 2);
    if (choice < sizeof kOptions / sizeof kOptions[0]) return kOptions[choice];
    return choice % 2 == 0 ? std::numeric_limits<double>::quiet_NaN()
                           : std::numeric_limits<double>::infinity();
  }

 private:
  const std::uint8_t* data_;
  std::size_t size_;
  std::size_t at_ = 0;
};
