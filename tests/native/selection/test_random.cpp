// The known answers of Random123 (tests/kat_vectors, "philox4x32 10"), at compile time and at run time.
#include "check.hpp"
#include "core/selection/random.hpp"

using sabiyarn::philox4x32;
using sabiyarn::PhiloxCounter;
using sabiyarn::uniform;

constexpr PhiloxCounter kZeros{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8};
static_assert(philox4x32({0, 0, 0, 0}, {0, 0}) == kZeros);

int main() {
  volatile std::uint32_t ones = 0xffffffff;  // keeps the compiler from working it out
  const PhiloxCounter expected{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd};
  CHECK(philox4x32({ones, ones, ones, ones}, {ones, ones}) == expected);
  const PhiloxCounter pi{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1};
  CHECK(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}) == pi);
  CHECK(uniform(7, 3, 5) == 0.4349716486914954);
  CHECK(uniform(7, 3, 5) != uniform(7, 3, 5, 1));
  CHECK(uniform(7, 3, 5) != uniform(7 + (1ULL << 32), 3, 5));
  return outcome();
}
