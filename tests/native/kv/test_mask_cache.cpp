#include <cmath>
#include <stdexcept>

#include "check.hpp"
#include "core/kv/mask_cache.hpp"

using namespace sabiyarn;

namespace {

void check_chunk(MaskCache& cache, std::int64_t first, std::int64_t count) {
  const MaskRows mask = cache.rows(first, count);
  std::vector<float> additive(static_cast<std::size_t>(count * (first + count)));
  cache.write_additive(first, count, additive.data(), first + count);
  for (std::int64_t row = 0; row < count; ++row) {
    for (std::int64_t key = 0; key < first + count; ++key) {
      const bool may = key <= first + row;
      const float added = additive[static_cast<std::size_t>(row * (first + count) + key)];
      CHECK((mask.data[row * mask.stride + key] != 0) == may);
      CHECK(may ? added == 0.0F : std::isinf(added) && added < 0.0F);
    }
  }
}

}  // namespace

int main() {
  MaskCache cache(100, 8);
  CHECK(cache.nbytes() == 0 && cache.sizes().empty());  // nothing before it is asked for
  for (const std::int64_t first : {0, 1, 7, 30}) {
    for (const std::int64_t count : {1, 2, 9}) check_chunk(cache, first, count);
  }
  CHECK((cache.sizes() == std::vector<std::int64_t>{8, 16, 32, 64}));
  CHECK(cache.nbytes() == 8 * 8 + 16 * 16 + 32 * 32 + 64 * 64);
  const std::uint8_t* kept = cache.rows(0, 3).data;
  CHECK(cache.rows(0, 5).data == kept);  // the same size is the same memory

  CHECK_THROWS(cache.rows(128, 1), std::out_of_range);  // 100 positions are rounded up to 128
  CHECK_THROWS(cache.rows(0, 0), std::invalid_argument);
  CHECK_THROWS(MaskCache(0), std::invalid_argument);
  cache.free();
  CHECK(cache.nbytes() == 0);
  check_chunk(cache, 3, 3);
  return outcome();
}
