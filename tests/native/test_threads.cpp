// What several threads may do at once: runs of their own side by side, and cancel() and nbytes() of
// another's. Results must be those of the same runs alone. Built with SABIYARN_EDGE_SANITIZE=thread, this
// finds what they share by mistake.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "check.hpp"
#include "core/decoding/decode_state.hpp"
#include "core/kv/kv_cache.hpp"
#include "core/kv/mask_cache.hpp"
#include "core/selection/random.hpp"
#include "core/simd/half.hpp"

using namespace sabiyarn;

namespace {

constexpr std::size_t kVocab = 300;
constexpr std::uint64_t kThreads = 4;

using Sequences = std::vector<std::vector<TokenId>>;

template <typename Work>  // void(thread)
void in_threads(Work work) {
  std::vector<std::thread> threads;
  for (std::uint64_t i = 0; i < kThreads; ++i) threads.emplace_back([&work, i] { work(i); });
  for (std::thread& thread : threads) thread.join();
}

std::shared_ptr<const TokenBytes> token_bytes() {
  static const std::string_view texts[] = {"a", "b", "ab", "", "\xe1", "\xbb", "\xb5", "c "};
  std::vector<std::string_view> tokens;
  for (std::size_t id = 0; id < kVocab; ++id) tokens.push_back(texts[id % 8]);
  return std::make_shared<TokenBytes>(tokens);
}

// A whole run; options vary with the seed. The table of token bytes is shared by all.
Sequences decode(std::uint64_t seed, const std::shared_ptr<const TokenBytes>& tokens) {
  DecodeOptions options;
  options.max_new_tokens = 40;
  options.num_beams = seed % 3 == 0 ? 3 : 1;
  options.do_sample = seed % 2 == 0;
  options.top_p = 0.9;
  options.repetition_penalty = 1.3;
  options.no_repeat_ngram_size = 3;
  options.eos_token_id = {7};
  options.stop_strings = {"abca", "\xe1\xbb\xb5"};
  options.token_bytes = tokens;
  options.seeds = {seed};
  DecodeState state(options, kVocab, {{1, 2, 3}, {4, 5}});
  for (std::uint32_t step = 0; !state.finished(); ++step) {
    std::vector<float> logits(static_cast<std::size_t>(state.num_rows()) * kVocab);
    for (std::size_t i = 0; i < logits.size(); ++i) {
      logits[i] = static_cast<float>(uniform(seed, 1, step, static_cast<std::uint32_t>(i)) * 9.0);
    }
    state.advance(logits.data());
  }
  Sequences result;
  for (std::size_t i = 0; i < state.num_outputs(); ++i) {
    const auto ids = state.sequence(i);
    result.emplace_back(ids.begin(), ids.end());
  }
  return result;
}

void runs_side_by_side_give_what_each_gives_alone() {
  const auto tokens = token_bytes();
  constexpr std::uint64_t kRuns = 6;
  std::vector<Sequences> found(kThreads * kRuns);
  in_threads([&](std::uint64_t thread) {
    for (std::uint64_t run = 0; run < kRuns; ++run) {
      found[thread * kRuns + run] = decode(thread * kRuns + run, tokens);
    }
  });
  for (std::uint64_t seed = 0; seed < found.size(); ++seed) CHECK(found[seed] == decode(seed, tokens));
}

void another_thread_cancels() {
  DecodeOptions options;
  options.max_new_tokens = 1 << 20;  // it would take minutes
  DecodeState state(options, kVocab, {{1}, {2}});
  std::atomic<bool> begun = false;
  std::thread canceller([&] {
    while (!begun.load()) std::this_thread::yield();
    state.cancel();
    CHECK(state.interruption() == FinishReason::cancelled);
  });
  while (!state.finished()) {
    std::vector<float> logits(static_cast<std::size_t>(state.num_rows()) * kVocab, 0.5f);
    state.advance(logits.data());
    begun.store(true);
  }
  canceller.join();
  CHECK(state.finish_reason(0) == FinishReason::cancelled &&
        state.finish_reason(1) == FinishReason::cancelled);
}

// Rows that share pages of their beginning and then part. Each position holds its row's number and its own.
void fork_and_check(std::uint64_t thread) {
  constexpr std::int64_t kHeads = 2, kHeadDim = 64, kPrompt = 64, kRows = 4;
  KvCache cache({2, kHeads, kHeadDim, KvDtype::kFloat16}, 512, 0, 0, 256);  // rows of whole pages
  const auto at = [&](std::int64_t row, std::int64_t head, std::int64_t slot) {
    return cache.values(1) + static_cast<std::size_t>(row) * cache.row_bytes() +
           static_cast<std::size_t>((head * cache.capacity() + slot) * kHeadDim * 2);
  };
  const auto write = [&](std::int64_t row, std::int64_t slot, int value) {
    for (std::int64_t head = 0; head < kHeads; ++head) std::memset(at(row, head, slot), value, kHeadDim * 2);
  };
  for (int round = 0; round < 20; ++round) {
    const int mark = static_cast<int>(thread * 20) + round;
    cache.clear();
    cache.resize(kRows);
    cache.begin_append(0, kPrompt);
    for (std::int64_t slot = 0; slot < kPrompt; ++slot) write(0, slot, mark);
    const std::int32_t others[] = {1, 2, 3};
    cache.fork(0, others, 3, kPrompt);
    for (std::int64_t row = 0; row < kRows; ++row) {
      cache.begin_append(row, 1);
      write(row, kPrompt, static_cast<int>(row) + 100);
    }
    cache.fork(3, others + 1, 1, kPrompt + 1);
    const int newest[kRows] = {0, 1, 3, 3};
    for (std::int64_t row = 0; row < kRows; ++row) {
      for (std::int64_t head = 0; head < kHeads; ++head) {
        CHECK(*at(row, head, kPrompt - 1) == static_cast<std::byte>(mark));
        CHECK(*at(row, head, kPrompt) == static_cast<std::byte>(newest[row] + 100));
      }
    }
    if (round % 5 == 4) cache.free();
  }
}

void caches_side_by_side_keep_their_own_rows() { in_threads(fork_and_check); }

void sizes_may_be_asked_while_memory_changes() {
  KvCache cache({2, 2, 8, KvDtype::kFloat16}, 4096, 0, 0, 16);
  MaskCache masks(512, 16);
  std::atomic<bool> done = false;
  std::thread watcher([&] {
    std::size_t most = 0;
    while (!done.load()) most = std::max(most, cache.nbytes() + masks.nbytes());
    CHECK(most <= cache.bytes_per_position() * 4096 + 2 * 512 * 512);
  });
  for (int round = 0; round < 10; ++round) {
    cache.resize(1);
    for (int append = 0; append < 64; ++append) cache.begin_append(0, 64);
    for (std::int64_t size = 16; size <= 512; size *= 2) masks.rows(0, size);
    cache.free();
    masks.free();
  }
  done.store(true);
  watcher.join();
}

void paths_are_chosen_once() {
  in_threads([](std::uint64_t thread) {
    std::vector<float> values(1000, static_cast<float>(thread) + 0.25f);
    std::vector<half_bits> halves(values.size());
    float_to_half(values.data(), halves.data(), values.size());
    for (const half_bits half : halves) CHECK(half == float_to_half(values[0]));
  });
}

}  // namespace

int main() {
  paths_are_chosen_once();  // first, while no thread has asked for the CPU's features
  runs_side_by_side_give_what_each_gives_alone();
  another_thread_cancels();
  caches_side_by_side_keep_their_own_rows();
  sizes_may_be_asked_while_memory_changes();
  return outcome();
}
