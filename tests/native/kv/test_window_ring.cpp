#include <set>
#include <stdexcept>

#include "check.hpp"
#include "core/kv/window_ring.hpp"

using namespace sabiyarn;

int main() {
  WindowRing ring(6, 2);
  std::vector<SlotMove> moves;
  CHECK(ring.append(6, moves) == 0 && moves.empty());
  CHECK(ring.max_append() == 4);  // the two sinks stay

  // Positions 2 and 3 go; 4 and 5 stand in the landing zone [4, 6) and take their slots.
  CHECK(ring.append(2, moves) == 4);
  CHECK(moves.size() == 2);
  CHECK(ring.slot_of(0) == 0 && ring.slot_of(1) == 1);
  CHECK(ring.slot_of(2) == -1 && ring.slot_of(3) == -1);
  CHECK(ring.slot_of(6) == 4 && ring.slot_of(7) == 5 && ring.slot_of(8) == -1);
  CHECK((std::set{ring.slot_of(4), ring.slot_of(5)} == std::set<std::int64_t>{2, 3}));

  ring.truncate(6, moves);
  CHECK(ring.length() == 4 && ring.total() == 6 && ring.oldest_recent() == 4);
  CHECK_THROWS(ring.truncate(3, moves), std::out_of_range);
  CHECK_THROWS(ring.append(5, moves), std::invalid_argument);
  ring.clear();
  CHECK(ring.length() == 0 && ring.max_append() == 6);
  return outcome();
}
