// csrc/core/decoding/finish_reason.hpp - why a sequence ended. If several reasons hold, the first of the list counts.
#pragma once

namespace sabiyarn {

enum class FinishReason { none, eos, stop, length, time, cancelled };

constexpr const char* name(FinishReason reason) noexcept {
  constexpr const char* kNames[] = {"", "eos", "stop", "length", "time", "cancelled"};
  return kNames[static_cast<int>(reason)];
}

}  // namespace sabiyarn
