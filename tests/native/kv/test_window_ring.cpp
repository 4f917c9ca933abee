#include <stdexcept>

#include "check.hpp"
#include "core/kv/window_ring.hpp"

using namespace sabiyarn;

int main() {
  WindowRing ring(60, 2, 10);
  CHECK(ring.size() == 128 && ring.max_append() == 128);
  ring.append(120);
  CHECK(ring.oldest() == 0 && ring.max_append() == 69 && ring.used_slots() == 120);
  for (std::int64_t position = 0; position < 120; ++position) CHECK(ring.slot_of(position) == position);

  ring.append(20);  // 126 slots behind the sinks hold the positions 14 ... 139
  CHECK(ring.oldest() == 14 && ring.used_slots() == 128);
  CHECK(ring.holds(1) && !ring.holds(2) && !ring.holds(13) && ring.holds(14) && !ring.holds(140));
  CHECK(ring.slot_of(1) == 1 && ring.slot_of(128) == 2 && ring.slot_of(139) == 13 && ring.slot_of(14) == 14);

  CHECK(ring.min_total() == 71);  // the token at 71 sees the positions 14 ... 71 and the sinks
  CHECK_THROWS(ring.truncate(70), std::out_of_range);
  CHECK_THROWS(ring.truncate(141), std::out_of_range);
  ring.truncate(71);
  CHECK(ring.total() == 71 && ring.oldest() == 14 && ring.max_append() == 69);
  ring.append(69);
  CHECK(ring.oldest() == 14);
  CHECK_THROWS(ring.append(70), std::invalid_argument);
  ring.clear();
  CHECK(ring.total() == 0 && ring.oldest() == 0 && ring.max_append() == 128);
  return outcome();
}
